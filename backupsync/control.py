"""What engine and aggregator tell each other over HTTP: the whole desired state down, the status up.

Level-triggered: the engine always says all of it, and the aggregator applies what is new. Ordered by
(term, generation); a lower pair is refused, the applied one is echoed in the status.
"""

from typing import Final, Literal

from msgspec import Struct, field

TERMINATED: Final = "Terminated"
"""Reason of a status: the aggregator had to end (its pod was deleted, its node drained), but not the job.
It wrote a checkpoint and sent nobody home: members wait for the next epoch."""

Phase = Literal["Joining", "Training", "Evaluating", "Suspended", "Succeeded", "Failed"]


class DesiredMember(Struct, frozen=True, forbid_unknown_fields=True):
    """A (rank, attempt) that the planner minted."""

    rank: int
    attempt: int
    candidate: bool = False
    """A successor beside its predecessor, promoted at its first whole gradient."""


class Desired(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole desired state of a running job."""

    term: int
    """Term of the engine's lease; always 0 for the local engine."""
    generation: int
    members: tuple[DesiredMember, ...]
    workers: int
    """N."""
    backup_workers: int
    """b."""
    suspend: bool = False
    stop: bool = False
    """Write a checkpoint, let the workers go and exit (Ctrl-C)."""
    restart: tuple[tuple[int, int], ...] = ()
    """(rank, attempt) pairs asked to restart in place; the engine drops a pair once its start has risen."""

    @property
    def order(self) -> tuple[int, int]:
        """What later states must exceed."""
        return (self.term, self.generation)


class MemberStatus(Struct, frozen=True, kw_only=True):
    """One member as the aggregator sees it."""

    rank: int
    attempt: int
    start: int
    state: Literal["Live", "Candidate", "Lost", "Fenced"]
    phase: str
    """What the worker says it does: starting, waiting, data, compute, push, evaluate."""
    accepted: int = 0
    dropped: int = 0
    refused: int = 0
    commits: int = 0
    """Gradients of this attempt that reached COMMIT, whatever their outcome."""
    busy_p50_seconds: float | None = None
    """Median seconds from parameters delivered to COMMIT over the last window, by the aggregator's clock."""
    last_outcome: str | None = None


class Refusal(Struct, frozen=True):
    """A peer that was turned away, for the person who wonders why it never joins."""

    peer: str
    code: str
    detail: str
    count: int = 1


class AggregatorStatus(Struct, frozen=True, kw_only=True):
    """`GET /status`: everything the engine may know without reading the trace."""

    job: str
    uid: str
    epoch: int
    phase: Phase
    reason: str = ""
    """CamelCase word for the phase, such as Completed, Diverged, BelowQuorum."""
    message: str = ""
    applied: tuple[int, int] = (0, 0)
    """(term, generation) of the desired state in force."""
    required: int = 0
    """N in force."""
    backups: int = 0
    iteration: int = 0
    """Updates applied so far."""
    iterations_total: int | None = None
    """Updates at the end, exact or estimated."""
    examples: int = 0
    """Applied examples so far."""
    examples_total: int | None = None
    rate: float = 0.0
    """Iterations per second, recent."""
    eta_seconds: float | None = None
    loss: float | None = None
    """Mean training loss of the last iteration's accepted gradients."""
    learning_rate: float | None = None
    evaluation: dict[str, float] = field(default_factory=dict)
    """Newest evaluation."""
    evaluation_problem: str = ""
    """Why the newest evaluation has no result (a message or a traceback); empty where it has one."""
    metrics: dict[str, float] = field(default_factory=dict)
    """What the program logged, mean over the last iteration's accepted."""
    checkpoint_iteration: int | None = None
    members: tuple[MemberStatus, ...] = ()
    refusals: tuple[Refusal, ...] = ()
