"""Evaluation: who evaluates when, in the slack that backup workers leave, and when it is given up."""

from collections.abc import Iterable

from backupsync.spec.training import EvaluationSpec
from backupsync_aggregator.round.events import Member
from backupsync_aggregator.round.members import Seat

_TRIES = 3


class Evaluations:
    """One evaluation at a time: due, then running, then done or given up."""

    def __init__(self, spec: EvaluationSpec) -> None:
        self._spec = spec
        self.useless = False
        """The program said that it has nothing to evaluate."""
        self.due = False
        """An evaluation is wanted, and runs as soon as somebody can be spared."""
        self.pausing = False
        """Nobody can ever be spared (b = 0): nobody computes until the evaluation is over."""
        self.running: Seat | None = None
        self.iteration = 0
        """Whose parameters are evaluated."""
        self._since = 0.0
        self._tries = 0
        self._asked = 0
        self.asked_in = 0
        """Iteration in which the evaluation that is due was asked for."""

    def falls_on(self, iteration: int) -> bool:
        """Whether the parameters of this iteration are to be evaluated."""
        every = self._spec.every_iterations
        return not self.useless and every > 0 and iteration % every == 0

    def ask(self, iteration: int, now: float, *, pausing: bool) -> None:
        """An evaluation is due now."""
        if not self.due:
            self.asked_in = iteration
        self.due = True
        self.pausing = pausing
        self._since = now
        self._tries = 0

    def choose(self, waiting: Iterable[Seat], everyone: Iterable[Seat], *, hurry: bool) -> Seat | None:
        """Pick whose turn it is: the one whose last evaluation is longest ago, and no candidate if avoidable.

        In a hurry whoever waits will do; otherwise one whose turn it is not, though it waits, is passed over.
        """
        found = min(waiting, key=_turn, default=None)
        if found is None or hurry:
            return found
        return found if _turn(found)[:2] <= min(map(_turn, everyone))[:2] else None

    def start(self, seat: Seat, iteration: int, now: float) -> None:
        """The member evaluates the parameters of `iteration`."""
        self.due = False
        self.running = seat
        self.iteration = iteration
        self._since = now
        self._tries += 1
        self._asked += 1
        seat.last_evaluation = self._asked
        seat.evaluating = True

    def is_from(self, member: Member, iteration: int) -> bool:
        """Whether this is the answer that is waited for."""
        return self.running is not None and self.running.member == member and self.iteration == iteration

    def overdue(self, now: float) -> bool:
        """Whether what is due or running has taken longer than its deadline."""
        return (self.due or self.running is not None) and now - self._since >= self._spec.deadline_seconds

    def close(self, *, again: bool = False) -> None:
        """The evaluation is over; with `again` it is due anew unless tried too often."""
        if self.running is not None:
            self.running.evaluating = False
            self.running = None
        self.due = again and self._tries < _TRIES
        self.pausing = self.pausing and self.due


def _turn(seat: Seat) -> tuple[bool, int, int]:
    return (seat.candidate, seat.last_evaluation, seat.member.rank)
