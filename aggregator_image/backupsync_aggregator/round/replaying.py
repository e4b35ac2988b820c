"""Replay: the same hands, told by a trace instead of by who comes first.

Every gradient that the traced run accepted is computed again on the same parameters, and every update
averages the same gradients in the same order. What was dropped is not computed: it never touched a parameter.
Whatever comes out differently ends the replay with the iteration, the rank and both values.
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping

import msgspec

from backupsync.control import Phase
from backupsync.report.history import applied_in
from backupsync.trace import Ended, Gradient, Iteration
from backupsync.wire.messages import Outcome
from backupsync_aggregator.round import events
from backupsync_aggregator.round.effects import Apply, Assign, Contribution, Effect, Finish, Record, Tell
from backupsync_aggregator.round.events import Member
from backupsync_aggregator.round.members import Assignment, MemberView, Seat


class ReplayRound:
    """Hands out what the trace says, in place of `Round`, to one worker for each rank that was accepted."""

    def __init__(self, gradients: Iterable[Gradient], iterations: Iterable[Iteration], now: float) -> None:
        self._lines = list(iterations)
        self._updates: list[list[Gradient]] = [[] for _ in self._lines]
        self._todo: dict[int, deque[Gradient]] = {}
        for gradient in gradients:
            if gradient.outcome == Outcome.ACCEPTED:
                self._updates[applied_in(gradient)].append(gradient)
                self._todo.setdefault(gradient.rank, deque()).append(gradient)
        self._seats: dict[int, Seat] = {}
        self._waiting: set[int] = set()
        self._computing: dict[int, Gradient] = {}
        self._done: dict[int, Contribution] = {}
        self._effects: list[Effect] = []
        self._finish: Finish | None = None
        self._now = self.iteration_began = now
        self.iteration = 0
        """Updates recomputed so far."""
        self.examples = 0
        """Examples of those updates."""

    @property
    def required(self) -> int:
        """Gradients of the running update."""
        return len(self._updates[self.iteration]) if self.iteration < len(self._updates) else 0

    @property
    def backups(self) -> int:
        """Nothing is dropped in a replay."""
        return 0

    @property
    def live(self) -> int:
        """Workers that have joined."""
        return len(self._seats)

    @property
    def members(self) -> Mapping[Member, MemberView]:
        """Every member that has joined."""
        return {seat.member: seat.view() for seat in self._seats.values()}

    @property
    def next_ticket(self) -> int:
        """A replay hands out no new tickets."""
        return 0

    @property
    def returned(self) -> tuple[int, ...]:
        """A replay hands out no new tickets."""
        return ()

    @property
    def iterations_total(self) -> int | None:
        """Updates in the trace."""
        return len(self._updates)

    @property
    def examples_total(self) -> int | None:
        """Examples in the trace."""
        return self._lines[-1].examples if self._lines else 0

    @property
    def phase(self) -> Phase:
        """What the replay is doing."""
        if self._finish is not None:
            return self._finish.outcome
        return "Training" if self.iteration or self._computing else "Joining"

    @property
    def reason(self) -> str:
        """CamelCase word for the phase."""
        return self._finish.reason if self._finish else "Replaying"

    @property
    def message(self) -> str:
        """The reason in words."""
        return self._finish.message if self._finish else "recomputing a traced run"

    def on(self, event: events.Event, now: float) -> list[Effect]:
        """Take note of an event; return what to do, in order."""
        if self._finish is not None:
            return []
        self._now, self._effects = now, []
        match event:
            case events.Joined(member, start):
                self._take_back(member, "joined again")
                self._seats[member.rank] = Seat(member, start=start, live=True)
            case events.Ready(member, holds):
                self._ready(member, holds)
            case events.Committed():
                self._committed(event)
            case events.Left(member, detail):
                self._left(member, detail)
            case events.Exhausted(member, iteration, ticket):
                self._fail("DataDiffers", f"iteration {iteration}: ticket {ticket} has no data any more")
            case events.Desire() if event.stop or event.suspend:
                self._end("Suspended", "Stopped", "the replay was stopped")
            case _:
                pass
        while self._finish is None and (self._hand_out() or self._complete()):
            pass
        return self._effects

    def _ready(self, member: Member, holds: int) -> None:
        seat = self._seats.get(member.rank)
        if seat is not None and seat.member == member and member.rank not in self._computing:
            seat.holds = holds
            self._waiting.add(member.rank)

    def _left(self, member: Member, detail: str) -> None:
        """A connection broke: the worker joins again, and a process that died is the engine's to judge."""
        seat = self._seats.get(member.rank)
        if seat is not None and seat.member == member:
            self._take_back(member, detail)
            del self._seats[member.rank]

    def _take_back(self, member: Member, why: str) -> None:
        """Hand out again what the rank was computing, while the parameters for it are still there."""
        rank = member.rank
        self._waiting.discard(rank)
        gradient = self._computing.pop(rank, None)
        if gradient is None:
            return
        self._todo[rank].appendleft(gradient)
        if gradient.iteration != self.iteration:
            self._fail(
                "WorkerLost",
                f"worker {rank} ({why}) cannot repeat its gradient of iteration {gradient.iteration}: "
                f"the replay is at {self.iteration}; start it once more",
            )

    def _committed(self, event: events.Committed) -> None:
        commit, rank = event.commit, event.member.rank
        expected = self._computing.get(rank)
        seat = self._seats.get(rank)
        if seat is None or seat.member != event.member:
            return
        if expected is None or (expected.iteration, expected.ticket) != (commit.iteration, commit.ticket):
            return
        if problem := _difference(event, expected):
            self._fail("Diverged", f"iteration {expected.iteration}, rank {rank}: {problem}")
            return
        del self._computing[rank]
        seat.assignment = None
        seat.accepted += 1
        seat.commits += 1
        place = expected.place or 0
        self._done[rank] = Contribution(
            event.member, commit.ticket, place, commit.examples, commit.scale, commit.iteration
        )
        tell = Tell(event.member, commit.iteration, commit.ticket, Outcome.ACCEPTED, place)
        line = msgspec.structs.replace(expected, at=self._now)
        self._effects += [tell, Record(line)]

    def _hand_out(self) -> bool:
        """Assign what the trace computed on the present parameters; return whether there was anything."""
        handed = False
        for rank in sorted(self._waiting):
            todo = self._todo.get(rank)
            if not todo or todo[0].iteration != self.iteration or rank in self._done:
                continue
            gradient, seat = todo.popleft(), self._seats[rank]
            send = seat.holds != self.iteration
            self._waiting.discard(rank)
            self._computing[rank] = gradient
            seat.assignment = Assignment(
                gradient.iteration, gradient.ticket, self._now, self.iteration_began, to_the_end=True
            )
            seat.holds = self.iteration
            self._effects.append(
                Assign(seat.member, gradient.iteration, gradient.ticket, None, True, send_parameters=send)
            )
            handed = True
        return handed

    def _complete(self) -> bool:
        """Apply the running update if everything for it, and on its parameters, is there."""
        if self.iteration == len(self._updates):
            self._end("Succeeded", "Completed", f"{self.iteration} iterations, {self.examples} examples")
            return False
        update = self._updates[self.iteration]
        begun = all(not todo or todo[0].iteration != self.iteration for todo in self._todo.values())
        if not begun or any(
            (part := self._done.get(gradient.rank)) is None or part.ticket != gradient.ticket
            for gradient in update
        ):
            return False
        parts = [self._done.pop(gradient.rank) for gradient in sorted(update, key=lambda g: g.place or 0)]
        self._effects.append(Apply(self.iteration, tuple(parts), self.examples))
        line = msgspec.structs.replace(
            self._lines[self.iteration], at=self._now, seconds=self._now - self.iteration_began
        )
        self._effects.append(Record(line))
        self.iteration += 1
        self.examples += sum(part.examples for part in parts)
        self.iteration_began = self._now
        return True

    def _fail(self, reason: str, message: str) -> None:
        self._end("Failed", f"Replay{reason}", message)

    def _end(self, outcome: "Phase", reason: str, message: str) -> None:
        assert outcome in ("Succeeded", "Failed", "Suspended")
        line = Ended(at=self._now, iteration=self.iteration, outcome=outcome, reason=reason, message=message)
        self._finish = Finish(outcome, reason, message)
        self._effects += [Record(line), self._finish]


def _difference(event: events.Committed, expected: Gradient) -> str:
    """Say what came out otherwise than in the trace; empty when nothing did."""
    commit = event.commit
    if not event.whole or not event.finite:
        return "the gradient is not whole and finite, in the traced run it was"
    pairs = (
        ("loss", commit.loss, expected.loss),
        ("examples", commit.examples, expected.examples),
        ("clipping scale", commit.scale, expected.scale),
    )
    for name, now, then in pairs:
        if then is not None and now != then and not (math.isnan(now) and math.isnan(then)):
            return f"{name} is {now!r}, in the traced run it was {then!r}"
    return ""
