"""Pods that cannot start: why, in the scheduler's or the kubelet's words, and for how long the job waits.

A pending worker never stops a job that has N others. Only while training waits does the clock of
`runPolicy.pendingDeadlineSeconds` run; only pods are judged, for a process is never pending for long.
"""

from typing import NamedTuple

from backupsync.lifecycle.draft import Draft
from backupsync.lifecycle.members import id_of
from backupsync.lifecycle.types import Replica
from backupsync.lifecycle.words import name_of

VOLUME_SECONDS = 60.0
"""After this long an aggregator that has a node and does not start is taken to wait for its volume."""
_SHOWN = 3
"""Pending replicas that a message names one by one."""


class Stuck(NamedTuple):
    """A replica that is wanted and has not started."""

    name: str
    reason: str
    """CamelCase; empty while it is merely starting."""
    message: str

    def __str__(self) -> str:
        said = f"{self.reason}: {self.message}" if self.message else self.reason
        return f"{self.name} is pending: {said}"


def stuck_replicas(draft: Draft) -> list[Stuck]:
    """Return the wanted replicas that have not started, those with a reason first; then what was rejected."""
    wanted = [draft.aggregator_id, *(id_of(m) for m in draft.status.members)]
    rejected = {r.replica: r for r in draft.observed.rejections}
    found = []
    for id_ in wanted:
        replica = draft.replicas.get(id_)
        if replica is not None and replica.phase == "Pending":
            found.append(
                _volume_stuck(draft, replica) or Stuck(name_of(id_), replica.reason, replica.message)
            )
        elif replica is None and id_ in rejected:
            found.append(Stuck(name_of(id_), rejected[id_].reason, rejected[id_].message))
    found += [Stuck("an object of the job", r.reason, r.message) for i, r in rejected.items() if i is None]
    return sorted(found, key=lambda stuck: not stuck.reason)


def _volume_stuck(draft: Draft, replica: Replica) -> Stuck | None:
    """A later epoch that has a node and yet does not start: its predecessor's node may hold the volume."""
    since, claim = draft.status.pending_since, draft.spec.checkpoint.volume_claim_template
    later = replica.id.role == "aggregator" and replica.id.attempt > 1
    if not later or replica.reason or not replica.node or claim is None or since is None:
        return None
    if draft.now < since + VOLUME_SECONDS:
        draft.wake(since + VOLUME_SECONDS)
        return None
    message = (
        f"it does not start on node {replica.node}: a volume that one node at a time may mount is let go "
        "minutes after that node was lost, or never; see `kubectl describe pod`, and take ReadWriteMany "
        "where there is any"
    )
    return Stuck(name_of(replica.id), "CheckpointVolumeStuck", message)


def in_words(stuck: list[Stuck]) -> str:
    """What is stuck, in one line: replicas that share a reason and a message are counted, not listed."""
    lines = list(
        dict.fromkeys(f"{s.reason}: {s.message}" if s.message else s.reason for s in stuck if s.reason)
    )
    if not lines:
        return f"{len(stuck)} pods are starting" if stuck else ""
    told = [s for s in stuck if s.reason]
    first = (
        str(told[0]) if len(told) == 1 else f"{len(told)} replicas are pending: {'; '.join(lines[:_SHOWN])}"
    )
    return first if len(lines) <= _SHOWN else f"{first}; and {len(lines) - _SHOWN} more reasons"


def watch_pending(draft: Draft) -> None:
    """Announce why pods are pending, and end a job that has waited for them too long."""
    if not draft.observed.pods:
        return
    stuck = stuck_replicas(draft)
    _announce(draft, stuck)
    if not stuck or not short(draft):
        draft.update(pending_since=None)
        return
    since = draft.status.pending_since
    if since is None:
        since = draft.now
        draft.update(pending_since=since)
    limit = draft.spec.run_policy.pending_deadline_seconds
    if draft.now >= since + limit:
        message = (
            f"training has waited for pods for {draft.now - since:.0f} s "
            f"(spec.runPolicy.pendingDeadlineSeconds {limit:g}): {in_words(stuck)}"
        )
        draft.fail("PendingDeadlineExceeded", message)
    else:
        draft.wake(since + limit)
        draft.note(in_words(stuck))


def short(draft: Draft) -> bool:
    """Whether fewer workers are live than an iteration needs."""
    answer = draft.aggregator
    if answer is None:
        return True
    live = sum(member.state == "Live" for member in answer.members)
    return live < (answer.required or draft.spec.aggregation.workers)


def _announce(draft: Draft, stuck: list[Stuck]) -> None:
    """Tell people once per reason, for as long as anything is pending."""
    told = draft.status.pending_told if stuck else ()
    for reason in dict.fromkeys(s.reason for s in stuck if s.reason):
        if reason not in told:
            told = (*told, reason)
            draft.announce("Warning", reason, in_words([s for s in stuck if s.reason == reason]))
    if told != draft.status.pending_told:
        draft.update(pending_told=told)
