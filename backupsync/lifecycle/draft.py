"""A plan while it is being made: the status as it will be, what to do, and why.

The only mutable thing in the lifecycle. It lives for one call of `plan` and never leaves it, so the planner
stays a pure function of its arguments.
"""

from typing import Any, Literal

from msgspec import structs

from backupsync.control import TERMINATED, AggregatorStatus
from backupsync.exits import Exit
from backupsync.lifecycle.types import (
    Action,
    Announce,
    Condition,
    Delete,
    JobStatus,
    MemberIntent,
    Observed,
    Plan,
    RankHistory,
    Replica,
    ReplicaId,
    Role,
    Start,
    Stop,
    Tell,
)
from backupsync.lifecycle.words import explain, name_of
from backupsync.spec import BackupSyncJob, JobSpec

# Announced before, told before stopped (the aggregator lets a rank go before its replica ends), stopped
# before started (a freed place is free), the aggregator started before its workers.
_ORDER: tuple[type[Action], ...] = (Announce, Tell, Stop, Start, Delete)


_CONDITIONS = ("Accepted", "Ready", "Suspended", "Succeeded", "Failed")


def with_condition(conditions: tuple[Condition, ...], wanted: Condition, now: float) -> tuple[Condition, ...]:
    """Return `conditions` with `wanted` in the place of its type, stamped `now` if its status flipped."""
    old = next((c for c in conditions if c.type == wanted.type), None)
    since = now if old is None or old.status != wanted.status else old.last_transition_time
    stamped = structs.replace(wanted, last_transition_time=since)
    others = (c for c in conditions if c.type != wanted.type)
    return tuple(sorted((*others, stamped), key=lambda c: _CONDITIONS.index(c.type)))


class Draft:
    """The status, actions, reasons and alarms of a plan in the making."""

    def __init__(self, job: BackupSyncJob, observed: Observed, status: JobStatus, now: float) -> None:
        self.job = job
        self.observed = observed
        self.before = status
        self.status = status
        self.now = now
        self.replicas: dict[ReplicaId, Replica] = {replica.id: replica for replica in observed.replicas}
        self._actions: list[Action] = []
        self._explanation: list[str | Action] = []
        self._wake: float | None = None

    @property
    def spec(self) -> JobSpec:
        """The job's spec."""
        return self.job.spec

    @property
    def finished(self) -> bool:
        """Whether the job has succeeded or failed, also within this plan."""
        return self.status.phase in ("Succeeded", "Failed")

    @property
    def aggregator(self) -> AggregatorStatus | None:
        """The answer of the aggregator in office; one of an earlier epoch has nothing to say."""
        answer = self.observed.aggregator
        return answer if answer is not None and answer.epoch == self.status.aggregator_attempt else None

    @property
    def aggregator_id(self) -> ReplicaId:
        """The aggregator in office."""
        return ReplicaId("aggregator", 0, self.status.aggregator_attempt)

    @property
    def last_answer(self) -> AggregatorStatus | None:
        """What the aggregator in office says, or said last before it exited."""
        replica = self.replicas.get(self.aggregator_id)
        final = None if replica is None or replica.phase != "Exited" else replica.final
        if final is not None and final.epoch == self.status.aggregator_attempt:
            return final
        return self.aggregator

    @property
    def echoed(self) -> bool:
        """Whether the aggregator in office has applied the desired state."""
        desired, answer = self.status.desired, self.aggregator
        return answer is not None and desired is not None and answer.applied >= desired.order

    @property
    def dismissed(self) -> bool:
        """Whether the aggregator in office has come to its end, and so has sent its workers home."""
        replica, progress = self.replicas.get(self.aggregator_id), self.status.progress
        if self.last_answer is not None and self.last_answer.reason == TERMINATED:
            return False
        if replica is not None and replica.phase == "Exited" and replica.exit_code == Exit.SUCCESS:
            return True
        ended = progress is not None and progress.phase in ("Suspended", "Succeeded", "Failed")
        return ended and self.answered

    @property
    def answered(self) -> bool:
        """Whether the aggregator in office has ever answered."""
        progress = self.status.progress
        return progress is not None and progress.epoch == self.status.aggregator_attempt

    def there(self, role: Role) -> list[Replica]:
        """Replicas of `role` that have not exited, in order of rank and attempt."""
        alive = (r for r in self.replicas.values() if r.id.role == role and r.phase != "Exited")
        return sorted(alive, key=lambda replica: replica.id)

    def update(self, **changes: Any) -> None:
        """Replace fields of the status."""
        self.status = structs.replace(self.status, **changes)

    def history(self, rank: int) -> RankHistory:
        """What is remembered of `rank`."""
        return next((h for h in self.status.ranks if h.rank == rank), RankHistory(rank=rank))

    def remember(self, rank: int, **changes: Any) -> None:
        """Replace fields of what is remembered of `rank`."""
        changed = structs.replace(self.history(rank), **changes)
        others = (h for h in self.status.ranks if h.rank != rank)
        self.update(ranks=tuple(sorted((*others, changed), key=lambda h: h.rank)))

    def replace_member(self, old: MemberIntent, *new: MemberIntent) -> None:
        """Put the intents `new` (or none) in the place of `old`."""
        kept = (m for m in self.status.members if m != old)
        self.update(members=tuple(sorted((*kept, *new), key=lambda m: (m.rank, m.attempt))))

    def condition(self, kind: Any, value: Any, reason: str, message: str = "") -> None:
        """Set one condition; its transition time moves only if its status flips."""
        wanted = Condition(type=kind, status=value, reason=reason, message=message)
        self.update(conditions=with_condition(self.status.conditions, wanted, self.now))

    def note(self, text: str) -> None:
        """Say why something is done or left undone."""
        self._explanation.append(text)

    @property
    def content(self) -> bool:
        """Whether nothing has been done or said so far."""
        return not self._explanation

    def wake(self, at: float) -> None:
        """Look again at `at` (Unix seconds) at the latest."""
        self._wake = at if self._wake is None else min(self._wake, at)

    def act(self, action: Action) -> None:
        """Do `action`; its reason becomes part of the explanation."""
        self._actions.append(action)
        self._explanation.append(action)

    def stop(self, replica: Replica, reason: str, grace_seconds: float = 10.0) -> None:
        """End `replica`, unless it is ending already; by force where its node cannot confirm it."""
        if any(isinstance(a, Stop) and a.replica == replica.id for a in self._actions):
            return
        if replica.node_lost:
            self.act(Stop(replica.id, f"{reason}; its node is lost", 0.0, force=True))
        elif replica.stopping:
            self.note(f"{name_of(replica.id)} is ending: {reason}")
        else:
            self.act(Stop(replica.id, reason, grace_seconds))

    def announce(self, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Tell people. Call it on transitions only."""
        self.act(Announce(kind, reason, message))

    def succeed(self, reason: str, message: str) -> None:
        """End the job well."""
        self._finish("Succeeded", reason, message)
        self.announce("Normal", reason, f"the job has succeeded: {message}")

    def fail(self, reason: str, message: str) -> None:
        """End the job badly; `message` is for the user and names the remedy."""
        self._finish("Failed", reason, message)
        self.announce("Warning", reason, f"the job has failed: {message}")

    def _finish(self, phase: Literal["Succeeded", "Failed"], reason: str, message: str) -> None:
        over = {"members": (), "restarts": (), "halting_since": None, "halt": "", "halted_at": None}
        self.update(phase=phase, completion_time=self.now, **over)
        self.condition(phase, "True", reason, message)

    def plan(self) -> Plan:
        """The finished plan, its actions in the order they must be carried out."""
        ordered = sorted(self._actions, key=lambda action: _ORDER.index(type(action)))
        requeue = None if self._wake is None else max(0.0, self._wake - self.now)
        return Plan(
            actions=tuple(ordered),
            status=self.status,
            requeue_after=requeue,
            explanation=explain(self._explanation),
        )
