"""The whole state of a round, small and explicit: plain fields, the clock and the effects so far."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from backupsync.spec import JobSpec, Mode
from backupsync.trace import Line, Membership
from backupsync_aggregator.round.effects import Contribution, Effect, Finish, Record
from backupsync_aggregator.round.evaluation import Evaluations
from backupsync_aggregator.round.events import Desire, Member
from backupsync_aggregator.round.members import Roster, Seat
from backupsync_aggregator.round.quorum import Quorum
from backupsync_aggregator.round.tickets import Tickets


@dataclass(frozen=True)
class Origin:
    """Where a round starts: at nothing, or where a checkpoint left off."""

    iteration: int = 0
    """Updates already applied."""
    examples: int = 0
    """Examples already applied."""
    next_ticket: int = 0
    returned: tuple[int, ...] = ()
    """Tickets handed out before, but not finished: they go out first."""
    epoch: int = 1
    """Epoch of this aggregator, minted by the planner."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the job ends, decided but not yet carried out while the final evaluation runs."""

    outcome: Literal["Succeeded", "Failed", "Suspended"]
    reason: str
    message: str


class State:
    """Everything a round knows."""

    def __init__(self, spec: JobSpec, origin: Origin, desire: Desire, now: float) -> None:
        self.spec = spec
        self.origin = origin
        self.is_async = spec.aggregation.mode is Mode.ASYNC
        self.now = now
        self.effects: list[Effect] = []

        self.roster = Roster()
        self.tickets = Tickets(origin.next_ticket, origin.returned, spec.aggregation)
        self.quorum = Quorum(spec.aggregation, desire.workers, desire.backup_workers, now)
        self.evaluations = Evaluations(spec.training.evaluation)
        self.desire = desire

        self.iteration = origin.iteration
        self.examples = origin.examples
        self.iteration_began = now
        self.contributions: list[Contribution] = []
        """Accepted in the running iteration, by place."""
        self.losses: list[tuple[float, int]] = []
        """Loss and examples of each accepted gradient whose loss is finite."""
        self.accepted_ranks: dict[int, Member] = {}
        """Who made the accepted gradient of each rank in the running iteration."""
        self.non_finite_row = 0
        """Gradients that were not finite, one after the other."""
        self.batches_per_epoch: int | None = None
        self.exhausted_seen = False
        """Some member's data came to its end."""

        self.suspending_since: float | None = None
        self.verdict: Verdict | None = None
        """Training is over; a final evaluation may still run."""
        self.finish: Finish | None = None
        self.stirred = True
        """Members, desire or time changed: look at quorum and deadlines."""
        self.reopen = False
        """Something that kept members waiting has passed: look at who waits."""

    @property
    def begun(self) -> bool:
        """Whether N were live once."""
        return self.quorum.begun

    def emit(self, *effects: Effect) -> None:
        """Have something done, after what was emitted before."""
        self.effects.extend(effects)

    def record(self, line: Line) -> None:
        """Have a line of the trace written."""
        self.effects.append(Record(line))

    def note_member(self, seat: Seat, event: str, detail: str = "") -> None:
        """Record what happened to a member."""
        rank, attempt = seat.member
        self.record(
            Membership(
                at=self.now,
                iteration=self.iteration,
                rank=rank,
                attempt=attempt,
                start=seat.start,
                event=event,
                detail=detail,
            )
        )

    def has_contributed(self, rank: int) -> bool:
        """Whether the rank has a gradient accepted in the running iteration."""
        return rank in self.accepted_ranks

    def computing(self) -> Iterable[Seat]:
        """Members that compute a gradient of the running iteration."""
        return (
            s for s in self.roster.live_seats() if s.assignment and s.assignment.iteration == self.iteration
        )

    def present(self) -> int:
        """Ranks that are live, or left once their data was at its end: none of them is waited for."""
        if not self.exhausted_seen:
            return self.roster.live
        seats = self.roster.seats.values()
        done = {s.member.rank for s in seats if s.exhausted and not s.live and not s.fenced}
        return self.roster.live + sum(not self.roster.rank_is_live(rank) for rank in done)

    def reachable(self) -> int:
        """Gradients the running iteration could have: those accepted, and one of every other live rank."""
        gone = sum(not self.roster.rank_is_live(rank) for rank in self.accepted_ranks)
        return self.roster.live + gone

    def reached_end(self) -> bool:
        """Whether the job's iterations or examples are done."""
        training = self.spec.training
        if training.iterations is not None:
            return self.iteration >= training.iterations
        return training.examples is not None and self.examples >= training.examples

    def unfinished_tickets(self) -> tuple[int, ...]:
        """Tickets a successor should hand out first: given back, reserved, in flight, or not yet applied."""
        held = [s.reserved for s in self.roster.seats.values() if s.reserved is not None]
        held += [s.assignment.ticket for s in self.roster.seats.values() if s.assignment is not None]
        held += [c.ticket for c in self.contributions]
        return tuple(sorted((*self.tickets.returned, *held)))
