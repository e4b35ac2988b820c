"""The job's conditions, by the Kubernetes API conventions.

All five are there from the first plan on. `last_transition_time` moves only when a condition's status flips,
not when its reason or message changes.
"""

from backupsync.lifecycle.draft import Draft
from backupsync.lifecycle.halting import REFUSED
from backupsync.lifecycle.pending import Stuck, in_words, short, stuck_replicas

_UNREACHABLE = (
    "the aggregator is well for its kubelet, yet this engine no longer reaches it: training goes on unseen. "
    "Look at the network between them, and at its policies"
)
_AT_WORK = ("Training", "Evaluating")


def refresh_conditions(draft: Draft) -> None:
    """Bring every condition in line with the status; those of the end are set where the job ends."""
    _accepted(draft)
    _ready(draft)
    _suspended(draft)
    known = {c.type for c in draft.status.conditions}
    if "Succeeded" not in known:
        draft.condition("Succeeded", "False", "NotFinished")
    if "Failed" not in known:
        draft.condition("Failed", "False", "NotFinished")


def _accepted(draft: Draft) -> None:
    invalid = next((r for r in draft.observed.rejections if r.reason == "Invalid"), None)
    if invalid is not None and not draft.finished:
        what = "pod" if invalid.replica is not None else "object"
        said = (
            f"the API server refuses a {what} of the job, edit spec while it is suspended: {invalid.message}"
        )
        return draft.condition("Accepted", "False", "TemplateRefused", said)
    place = f"; {draft.observed.place}" if draft.observed.place else ""
    said = f"the manifest is valid and this engine runs the job{place}"
    return draft.condition("Accepted", "True", "Accepted", said)


def _ready(draft: Draft) -> None:
    status, answer = draft.status, draft.aggregator
    if draft.finished:
        return draft.condition("Ready", "False", "Finished", "the job has ended")
    if status.phase == "Suspended":
        return draft.condition("Ready", "False", "Suspended", "no workers run while the job is suspended")
    stuck = stuck_replicas(draft) if draft.observed.pods else []
    waiting = in_words(stuck)
    if answer is None:
        replica = draft.replicas.get(draft.aggregator_id)
        if status.aggregator_silent_since is not None and replica is not None and replica.ready:
            return draft.condition("Ready", "Unknown", "AggregatorUnreachable", _UNREACHABLE)
        said = "; ".join(filter(None, ("the aggregator does not answer yet", waiting)))
        return draft.condition("Ready", "False", _why(stuck, "AggregatorNotReady"), said)
    live = sum(member.state == "Live" for member in answer.members)
    needed = answer.required or draft.spec.aggregation.workers
    count = f"{live} workers are live, {needed} gradients make an iteration"
    count = "; ".join(filter(None, (count, waiting)))
    if short(draft):
        reason = answer.phase if answer.phase not in _AT_WORK else "BelowQuorum"
        # The aggregator's own words count seconds: an API object is not written for each.
        said = count if draft.observed.pods else answer.message or count
        return draft.condition("Ready", "False", _why(stuck, reason), said)
    if answer.phase not in _AT_WORK:
        return draft.condition("Ready", "False", answer.phase, answer.message or count)
    return draft.condition("Ready", "True", answer.phase, count)


def _why(stuck: list[Stuck], otherwise: str) -> str:
    """The reason of the first pod that cannot start, as the cause of everything else."""
    return next((s.reason for s in stuck if s.reason), otherwise)


def _suspended(draft: Draft) -> None:
    status = draft.status
    if draft.finished:
        draft.condition("Suspended", "False", "Finished")
    elif status.phase == "Suspended":
        asked = {"Stopped": "the user stopped it", "Suspended": "spec.runPolicy.suspend is true"}
        said = asked.get(status.halt, "it was suspended")
        draft.condition("Suspended", "True", status.halt or "Suspended", f"{said}; training can be resumed")
    elif status.halting_since is not None:
        draft.condition("Suspended", "False", "Suspending", "waiting for the aggregator's checkpoint")
    elif status.suspend_refused:
        draft.condition("Suspended", "False", "SuspendRefused", REFUSED)
    else:
        draft.condition("Suspended", "False", "Active")
