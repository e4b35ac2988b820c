"""What a round wants done, in order, as plain data. The hands do exactly this and nothing else."""

from dataclasses import dataclass
from typing import Literal

from backupsync.trace import Line
from backupsync.wire.messages import Outcome, Reason
from backupsync_aggregator.round.events import Member


@dataclass(frozen=True, slots=True)
class Assign:
    """Hand a ticket (and, unless the member holds them, the parameters of `iteration`) to a member."""

    member: Member
    iteration: int
    ticket: int
    next_ticket: int | None
    to_the_end: bool
    send_parameters: bool


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell a member what became of its gradient, and forget the gradient unless it was accepted.

    A gradient accepted before is never taken back: `unasked` concerns the bytes of this COMMIT alone.
    """

    member: Member
    iteration: int
    ticket: int
    outcome: Outcome
    place: int | None = None
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class NoticeStale:
    """Tell a computing member that its iteration has its N."""

    member: Member
    iteration: int


@dataclass(frozen=True, slots=True)
class Contribution:
    """One accepted gradient of an update."""

    member: Member
    ticket: int
    place: int
    examples: int
    scale: float
    iteration: int
    """Whose parameters it was computed on (differs from the update's number only in Async)."""


@dataclass(frozen=True, slots=True)
class Apply:
    """Average the contributions in order of place, weighted by examples; step; publish iteration + 1."""

    iteration: int
    contributions: tuple[Contribution, ...]
    examples_before: int
    """Examples applied before this update."""


@dataclass(frozen=True, slots=True)
class Dismiss:
    """Send a member home: it is fenced, replaced, scaled away, or the job is over."""

    member: Member
    why: Literal["succeeded", "failed", "suspended", "fenced", "restart", "scaled"]
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Send a member the averaged parameters (or the plain ones) to evaluate a copy of."""

    member: Member
    iteration: int


@dataclass(frozen=True, slots=True)
class AbortEvaluation:
    """Tell an evaluating member to stop."""

    member: Member
    iteration: int


@dataclass(frozen=True, slots=True)
class Record:
    """Write a line of the trace (and count it in the metrics)."""

    line: Line


@dataclass(frozen=True, slots=True)
class Finish:
    """The job is over, or suspended: write what has to be written, then send every member home.

    The last effect ever, but for a Dismiss to whoever still joins. Its Ended line was recorded just before.
    """

    outcome: Literal["Succeeded", "Failed", "Suspended"]
    reason: str
    message: str


Effect = Assign | Tell | NoticeStale | Apply | Dismiss | Evaluate | AbortEvaluation | Record | Finish
