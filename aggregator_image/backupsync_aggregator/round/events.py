"""What can happen to a round, as plain data. `Round.on(event, now)` turns each into effects."""

from dataclasses import dataclass
from typing import NamedTuple

from backupsync.control import DesiredMember
from backupsync.wire.messages import Commit, Timing


class Member(NamedTuple):
    """One attempt of one rank: who may speak is decided by the planner, not by the peer."""

    rank: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Desire:
    """A new desired state; it takes effect between iterations."""

    members: tuple[DesiredMember, ...]
    workers: int
    backup_workers: int
    suspend: bool = False
    stop: bool = False
    restart: tuple[Member, ...] = ()
    """Members asked to restart in place; asked until their start has risen."""


@dataclass(frozen=True, slots=True)
class Joined:
    """A member completed the join (again, when its process or connection is new)."""

    member: Member
    start: int


@dataclass(frozen=True, slots=True)
class Left:
    """A member's connection ended or fell silent."""

    member: Member
    detail: str


@dataclass(frozen=True, slots=True)
class Ready:
    """A member can compute; `holds` is the iteration of the parameters it has, -1 for none."""

    member: Member
    holds: int


@dataclass(frozen=True, slots=True)
class Committed:
    """A gradient is said to be whole. The hands have checked what only they can see."""

    member: Member
    commit: Commit
    whole: bool
    """Every chunk is there."""
    finite: bool
    """Neither the worker nor the hands found NaN or infinity."""


@dataclass(frozen=True, slots=True)
class Abandoned:
    """A member gave up a stale batch."""

    member: Member
    iteration: int
    ticket: int
    timing: Timing | None = None
    """How far it got, by the worker's own clock."""


@dataclass(frozen=True, slots=True)
class Exhausted:
    """A member's data has no batch for this ticket, nor for any later one."""

    member: Member
    iteration: int
    ticket: int


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A member finished evaluating, or failed to (`error`)."""

    member: Member
    iteration: int
    metrics: dict[str, float]
    seconds: float
    error: str | None


@dataclass(frozen=True, slots=True)
class DataLength:
    """Mini-batches in one pass over the data, known once the first member has joined; None: no length."""

    batches_per_epoch: int | None


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed: deadlines are looked at."""


Event = Desire | Joined | Left | Ready | Committed | Abandoned | Exhausted | Evaluated | DataLength | Tick
