"""The round's bookkeeper: watches every event and effect of a test, and objects when an invariant breaks.

It knows nothing of how the round decides. Whatever a test is about, it runs under these eyes.
"""

from collections import Counter

from backupsync.spec import JobSpec, Mode
from backupsync.trace import Ended, Gradient, Iteration, Membership, Resized
from backupsync.wire.messages import Outcome, Reason
from backupsync_aggregator.round import Member, Origin
from backupsync_aggregator.round.effects import Apply, Assign, Dismiss, Effect, Finish, Record, Tell
from backupsync_aggregator.round.events import Committed, Desire, Event, Joined


class Ledger:
    """What must hold after every event, whatever happened."""

    def __init__(self, spec: JobSpec, origin: Origin, desire: Desire) -> None:
        self._async = spec.aggregation.mode is Mode.ASYNC
        self._epoch = origin.epoch
        self.iteration = origin.iteration
        self.examples = origin.examples
        self.required = {spec.aggregation.workers, desire.workers}
        """What N may be: until training begins, whatever was desired last."""
        self.open: dict[Member, Assign] = {}
        """Assigned, and without an outcome so far."""
        self.handed: Counter[int] = Counter()
        self.accepted: list[tuple[Member, int, int]] = []
        """Accepted in the running iteration: member, ticket, iteration of its parameters."""
        self.spent: set[int] = set()
        """Tickets whose gradient was applied."""
        self.lost: set[int] = set()
        """Tickets whose gradient was dropped or refused."""
        self.finished = False
        self.began = False
        """N is in force, and changes only with notice."""

    def check(self, event: Event, effects: list[Effect]) -> None:
        """Go through the effects of one event."""
        if self.finished:
            assert all(isinstance(e, Dismiss) for e in effects), "after Finish nobody is told anything else"
            return
        if isinstance(event, Desire) and not self.began:
            self.required = {event.workers}
        told: list[Tell] = []
        for effect in effects:
            assert not self.finished, "Finish is the last effect"
            match effect:
                case Assign():
                    self._assigned(effect)
                case Tell():
                    self._told(event, effect)
                    told.append(effect)
                case Apply():
                    self._applied(effect)
                case Record():
                    self._recorded(effect, told)
                case Finish():
                    self.finished = True
                    assert not self.open, "everyone has been told when the job ends"
                case _:
                    pass
        assert not told, "every verdict is recorded"
        if isinstance(event, Joined):
            assert event.member not in self.open, "a new connection knows nothing of what the old one held"
        if isinstance(event, Committed):
            answers = [e for e in effects if isinstance(e, Tell) and e.member == event.member]
            assert len(answers) <= 1, "one answer to one gradient"

    def _assigned(self, assign: Assign) -> None:
        assert assign.member not in self.open, "one assignment per member"
        assert assign.iteration == self.iteration, "only the newest parameters are handed out"
        in_hands = {a.ticket for a in self.open.values()}
        assert assign.ticket not in in_hands, "a ticket is in one hand at a time"
        assert assign.ticket not in self.spent, "a mini-batch that was applied never comes back"
        self.handed[assign.ticket] += 1
        self.open[assign.member] = assign

    def _told(self, event: Event, tell: Tell) -> None:
        if tell.reason is Reason.UNASKED:
            return
        assign = self.open.get(tell.member)
        assert assign is not None, f"{tell} answers nothing"
        assert (assign.iteration, assign.ticket) == (tell.iteration, tell.ticket)
        if tell.outcome is Outcome.ACCEPTED:
            assert isinstance(event, Committed)
            assert event.whole and event.finite and event.commit.finite, "a broken gradient was accepted"
            assert event.commit.examples > 0
            assert (event.commit.epoch, event.commit.attempt) == (self._epoch, tell.member.attempt)
            assert self._async or tell.iteration == self.iteration, "a stale gradient was accepted"
            assert tell.place == len(self.accepted)
            ranks = {member.rank for member, _, _ in self.accepted}
            assert tell.member.rank not in ranks, "two gradients of one rank in an iteration"
            self.accepted.append((tell.member, tell.ticket, tell.iteration))

    def _applied(self, apply: Apply) -> None:
        assert apply.iteration == self.iteration
        assert apply.examples_before == self.examples
        assert [c.place for c in apply.contributions] == list(range(len(apply.contributions)))
        assert [(c.member, c.ticket, c.iteration) for c in apply.contributions] == self.accepted
        assert apply.contributions, "an update of nothing"
        self.spent.update(c.ticket for c in apply.contributions)
        self.examples += sum(c.examples for c in apply.contributions)

    def _recorded(self, effect: Record, told: list[Tell]) -> None:
        match effect.line:
            case Gradient() as line:
                self._gradient(line, told)
            case Iteration() as line:
                self._iteration(line)
            case Resized() as line:
                self.required = {line.required}
            case Membership(event="exhausted") as line:
                del self.open[Member(line.rank, line.attempt)]
            case Ended() as line:
                assert line.iteration == self.iteration
            case _:
                pass

    def _gradient(self, line: Gradient, told: list[Tell]) -> None:
        member = Member(line.rank, line.attempt)
        if told:
            tell = told.pop()
            assert (tell.member, tell.ticket, tell.outcome.value) == (member, line.ticket, line.outcome)
        if line.reason == Reason.UNASKED.value:
            return
        if line.outcome == Outcome.ACCEPTED.value:
            assert line.applied_at == self.iteration
        else:
            self.lost.add(line.ticket)
        assign = self.open.pop(member)
        assert (assign.iteration, assign.ticket) == (line.iteration, line.ticket)

    def _iteration(self, line: Iteration) -> None:
        assert line.iteration == self.iteration
        assert line.accepted == len(self.accepted)
        assert line.examples == self.examples
        if self._async:
            assert (line.required, line.accepted) == (1, 1)
        else:
            assert line.required in self.required, "N is what was last announced"
            assert line.accepted <= line.required
            assert (line.note is None) == (line.accepted == line.required), "k < N says why, k = N does not"
        self.iteration += 1
        self.accepted.clear()
