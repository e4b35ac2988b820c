"""Members: who is desired, who is live, what each was handed and how it fared."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from backupsync.control import DesiredMember
from backupsync_aggregator.round.events import Member


class Assignment(NamedTuple):
    """What a member was handed and has not answered yet."""

    iteration: int
    ticket: int
    since: float
    """When it was handed out."""
    began: float
    """When its iteration began."""
    to_the_end: bool


class Outstanding(NamedTuple):
    """An assignment as seen from outside."""

    iteration: int
    ticket: int
    since: float


@dataclass(frozen=True, slots=True)
class MemberView:
    """One member as seen from outside."""

    state: Literal["Live", "Candidate", "Lost", "Fenced"]
    start: int
    accepted: int
    dropped: int
    refused: int
    commits: int
    last_outcome: str | None
    assignment: Outstanding | None
    evaluating: bool


@dataclass(slots=True)
class Seat:
    """What the round knows of one member that has joined."""

    member: Member
    candidate: bool = False
    start: int = 0
    live: bool = False
    fenced: bool = False
    holds: int = -1
    """Iteration of the parameters it has."""
    assignment: Assignment | None = None
    reserved: int | None = None
    """Its next ticket, known to it for prefetching."""
    exhausted: bool = False
    """Its data is at its end."""
    evaluating: bool = False
    last_evaluation: int = -1
    """Number of the last evaluation it was asked for; -1 for none."""
    restart_of: int | None = None
    """The start that was asked to restart in place."""
    accepted: int = 0
    dropped: int = 0
    refused: int = 0
    commits: int = 0
    last_outcome: str | None = None

    def view(self) -> MemberView:
        """Return what others may know."""
        live: Literal["Live", "Candidate"] = "Candidate" if self.candidate else "Live"
        a = self.assignment
        return MemberView(
            state="Fenced" if self.fenced else live if self.live else "Lost",
            start=self.start,
            accepted=self.accepted,
            dropped=self.dropped,
            refused=self.refused,
            commits=self.commits,
            last_outcome=self.last_outcome,
            assignment=None if a is None else Outstanding(a.iteration, a.ticket, a.since),
            evaluating=self.evaluating,
        )


class Roster:
    """Seats by member; `live` counts ranks, since one rank makes one gradient of an iteration at most."""

    def __init__(self) -> None:
        self.seats: dict[Member, Seat] = {}
        self.waiting: dict[Member, Seat] = {}
        """Members that said READY and have nothing to do yet, in the order they said so."""
        self._desired: dict[Member, bool] = {}
        self._floor: dict[int, int] = {}
        self._live_of_rank: dict[int, int] = {}

    @property
    def live(self) -> int:
        """Ranks with a live member."""
        return len(self._live_of_rank)

    def rank_is_live(self, rank: int) -> bool:
        """Whether the rank has a live member."""
        return rank in self._live_of_rank

    def get(self, member: Member) -> Seat | None:
        """Return the member's seat if it is live."""
        seat = self.seats.get(member)
        return seat if seat is not None and seat.live else None

    def desire(self, members: tuple[DesiredMember, ...]) -> None:
        """Take over who is desired; a promotion already made stands, whatever the planner knows of it."""
        self._desired = {Member(m.rank, m.attempt): m.candidate for m in members}
        for member, candidate in self._desired.items():
            if not candidate:
                self.raise_floor(member)
        for member, seat in self.seats.items():
            seat.candidate = seat.candidate and self._desired.get(member, False)

    def raise_floor(self, member: Member) -> None:
        """Fence every lower attempt of the member's rank for good."""
        self._floor[member.rank] = max(self._floor.get(member.rank, 0), member.attempt)

    def admits(self, member: Member) -> bool:
        """Whether the member is desired, and no newer attempt has taken its place."""
        return member in self._desired and not self.is_fenced(member)

    def is_fenced(self, member: Member) -> bool:
        """Whether a newer attempt has taken the member's place."""
        return member.attempt < self._floor.get(member.rank, 0)

    def join(self, member: Member, start: int) -> Seat:
        """Seat a member (again)."""
        seat = self.seats.get(member)
        if seat is None:
            candidate = self._desired[member] and member.attempt > self._floor.get(member.rank, -1)
            seat = self.seats[member] = Seat(member, candidate=candidate)
        if seat.start != start:
            seat.exhausted = False
        seat.start = start
        seat.holds = -1
        seat.fenced = False
        if not seat.live:
            seat.live = True
            self._live_of_rank[member.rank] = self._live_of_rank.get(member.rank, 0) + 1
        return seat

    def leave(self, seat: Seat) -> None:
        """The member is live no more."""
        self.waiting.pop(seat.member, None)
        if not seat.live:
            return
        seat.live = False
        rank = seat.member.rank
        self._live_of_rank[rank] -= 1
        if not self._live_of_rank[rank]:
            del self._live_of_rank[rank]

    def live_seats(self) -> Iterator[Seat]:
        """Yield the live ones."""
        return (seat for seat in self.seats.values() if seat.live)

    def forget_gone(self) -> None:
        """Drop the seats of those who were sent home, are desired no more and have been reported as such."""
        gone = [m for m, s in self.seats.items() if s.fenced and not s.live and m not in self._desired]
        for member in gone:
            del self.seats[member]

    def predecessors(self, member: Member) -> list[Seat]:
        """Return the seats of lower attempts of the member's rank."""
        rank, attempt = member
        return [s for s in self.seats.values() if s.member.rank == rank and s.member.attempt < attempt]
