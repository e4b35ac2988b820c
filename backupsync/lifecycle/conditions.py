"""The job's conditions, by the Kubernetes API conventions.

All five are there from the first plan on. `last_transition_time` moves only when a condition's status flips,
not when its reason or message changes.
"""

from typing import TYPE_CHECKING

from msgspec import structs

from backupsync.lifecycle.types import Condition

if TYPE_CHECKING:
    from backupsync.lifecycle.draft import Draft

_TYPES = ("Accepted", "Ready", "Suspended", "Succeeded", "Failed")
_AT_WORK = ("Training", "Evaluating")


def with_condition(conditions: tuple[Condition, ...], wanted: Condition, now: float) -> tuple[Condition, ...]:
    """Return `conditions` with `wanted` in the place of its type, stamped `now` if its status flipped."""
    old = next((c for c in conditions if c.type == wanted.type), None)
    since = now if old is None or old.status != wanted.status else old.last_transition_time
    stamped = structs.replace(wanted, last_transition_time=since)
    others = (c for c in conditions if c.type != wanted.type)
    return tuple(sorted((*others, stamped), key=lambda c: _TYPES.index(c.type)))


def refresh_conditions(draft: "Draft") -> None:
    """Bring every condition in line with the status; those of the end are set where the job ends."""
    draft.condition("Accepted", "True", "Accepted", "the manifest is valid and this engine runs the job")
    _ready(draft)
    _suspended(draft)
    known = {c.type for c in draft.status.conditions}
    if "Succeeded" not in known:
        draft.condition("Succeeded", "False", "NotFinished")
    if "Failed" not in known:
        draft.condition("Failed", "False", "NotFinished")


def _ready(draft: "Draft") -> None:
    status, answer = draft.status, draft.aggregator
    if draft.finished:
        return draft.condition("Ready", "False", "Finished", "the job has ended")
    if status.phase == "Suspended":
        return draft.condition("Ready", "False", "Suspended", "no workers run while the job is suspended")
    if answer is None:
        return draft.condition("Ready", "False", "AggregatorNotReady", "the aggregator does not answer yet")
    live = sum(member.state == "Live" for member in answer.members)
    needed = answer.required or draft.spec.aggregation.workers
    count = f"{live} workers are live, {needed} gradients make an iteration"
    if answer.phase not in _AT_WORK:
        return draft.condition("Ready", "False", answer.phase, answer.message or count)
    if live < needed:
        return draft.condition("Ready", "False", "BelowQuorum", count)
    return draft.condition("Ready", "True", answer.phase, count)


def _suspended(draft: "Draft") -> None:
    status = draft.status
    if draft.finished:
        draft.condition("Suspended", "False", "Finished")
    elif status.phase == "Suspended":
        asked = {"Stopped": "the user stopped it", "Suspended": "spec.runPolicy.suspend is true"}
        said = asked.get(status.halt, "it was suspended")
        draft.condition("Suspended", "True", status.halt or "Suspended", f"{said}; training can be resumed")
    elif status.halting_since is not None:
        draft.condition("Suspended", "False", "Suspending", "waiting for the aggregator's checkpoint")
    else:
        draft.condition("Suspended", "False", "Active")
