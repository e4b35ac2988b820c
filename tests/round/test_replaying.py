"""A replay hands out what the trace accepted, applies it in the traced order, and ends where bits differ."""

import pytest

from backupsync.trace import Ended, Gradient, Iteration
from backupsync.wire.messages import Commit
from backupsync_aggregator.round import Member, ReplayRound, events
from backupsync_aggregator.round.effects import Apply, Assign, Finish, Record


def accepted(
    iteration: int, rank: int, ticket: int, place: int = 0, applied_at: int | None = None
) -> Gradient:
    return Gradient(
        at=0.0, iteration=iteration, rank=rank, attempt=1, ticket=ticket, outcome="accepted", place=place,
        applied_at=iteration if applied_at is None else applied_at, examples=4, scale=0.5, loss=1.0 + ticket,
    )  # fmt: skip


def update(iteration: int, count: int) -> Iteration:
    return Iteration(
        at=0.0, iteration=iteration, required=count, accepted=count, live=count, seconds=1.0,
        examples=4 * count * (iteration + 1),
    )  # fmt: skip


def commit(gradient: Gradient, **changes) -> Commit:
    said = {"loss": gradient.loss, "examples": 4, "scale": 0.5, "finite": True, "norm": 1.0} | changes
    return Commit(epoch=1, attempt=1, iteration=gradient.iteration, ticket=gradient.ticket, **said)


class Hands:
    """Joins workers and commits what they are assigned, in whatever order the test wants."""

    def __init__(self, gradients, iterations, ranks=2) -> None:
        self.gradients = {(g.rank, g.ticket): g for g in gradients}
        self.round = ReplayRound(gradients, iterations, now=0.0)
        self.assigned: dict[int, Assign] = {}
        self.effects: list = []
        for rank in range(ranks):
            self.on(events.Joined(Member(rank, 1), 0))
            self.on(events.Ready(Member(rank, 1), -1))

    def on(self, event) -> list:
        effects = self.round.on(event, 1.0)
        self.effects += effects
        for effect in effects:
            if isinstance(effect, Assign):
                self.assigned[effect.member.rank] = effect
        return effects

    def commit(self, rank: int, whole: bool = True, **changes) -> list:
        assign = self.assigned.pop(rank)
        gradient = self.gradients[rank, assign.ticket]
        done = self.on(events.Committed(Member(rank, 1), commit(gradient, **changes), whole, finite=True))
        return done + self.on(events.Ready(Member(rank, 1), assign.iteration))

    def of(self, kind: type) -> list:
        return [effect for effect in self.effects if isinstance(effect, kind)]

    @property
    def finish(self) -> Finish:
        (finish,) = self.of(Finish)
        return finish


def test_an_update_averages_the_traced_gradients_in_the_traced_places_whoever_comes_first():
    hands = Hands([accepted(0, 0, 5, place=1), accepted(0, 1, 3, place=0)], [update(0, 2)])
    hands.commit(0)
    assert not hands.of(Apply)
    hands.commit(1)
    (apply,) = hands.of(Apply)
    assert [(c.member.rank, c.ticket, c.place) for c in apply.contributions] == [(1, 3, 0), (0, 5, 1)]
    assert (hands.finish.outcome, hands.finish.reason) == ("Succeeded", "Completed")


def test_what_was_dropped_is_not_computed():
    late = Gradient(at=0.0, iteration=0, rank=1, attempt=1, ticket=9, outcome="dropped", reason="late")
    hands = Hands([accepted(0, 0, 0), late], [update(0, 1)])
    assert [a.ticket for a in hands.of(Assign)] == [0]


def test_a_stale_gradient_of_async_is_computed_on_the_parameters_it_was_traced_on():
    gradients = [
        accepted(0, 0, 0, applied_at=0),
        accepted(1, 0, 2, applied_at=1),
        accepted(0, 1, 1, applied_at=2),
    ]
    hands = Hands(gradients, [update(i, 1) for i in range(3)])
    assert {(a.member.rank, a.iteration) for a in hands.of(Assign)} == {(0, 0), (1, 0)}
    hands.commit(1)
    assert not hands.of(Apply), "its turn is the third"
    hands.commit(0)
    hands.commit(0)
    assert [[c.ticket for c in a.contributions] for a in hands.of(Apply)] == [[0], [2], [1]]


def test_parameters_do_not_move_on_before_everything_on_them_is_handed_out():
    gradients = [accepted(0, 0, 0, applied_at=0), accepted(0, 1, 1, applied_at=1)]
    hands = Hands(gradients, [update(0, 1), update(1, 1)], ranks=1)
    hands.commit(0)
    assert not hands.of(Apply), "rank 1 has not joined and needs the parameters of iteration 0"
    hands.on(events.Joined(Member(1, 1), 0))
    hands.on(events.Ready(Member(1, 1), -1))
    assert len(hands.of(Apply)) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss": 1.0000001}, "loss is 1.0000001, in the traced run it was 1.0"),
        ({"examples": 3}, "examples is 3, in the traced run it was 4"),
        ({"scale": 1.0}, "clipping scale is 1.0, in the traced run it was 0.5"),
        ({"whole": False}, "not whole"),
    ],
)
def test_whatever_comes_out_differently_ends_the_replay_with_both_values(changes, words):
    hands = Hands([accepted(0, 0, 0)], [update(0, 1)])
    hands.commit(0, **changes)
    assert (hands.finish.outcome, hands.finish.reason) == ("Failed", "ReplayDiverged")
    assert "iteration 0, rank 0" in hands.finish.message
    assert words in hands.finish.message
    assert not hands.of(Apply)


@pytest.mark.parametrize("event", [events.Left(Member(0, 1), "its connection is gone"), None])
def test_a_worker_that_joins_again_is_handed_the_same_gradient_again(event):
    hands = Hands([accepted(0, 0, 7)], [update(0, 1)])
    if event is not None:
        assert not hands.on(event)
    hands.on(events.Joined(Member(0, 1), 0))
    assert [a.ticket for a in hands.of(Assign)] == [7]
    hands.on(events.Ready(Member(0, 1), -1))
    again = hands.of(Assign)[1]
    assert (again.ticket, again.send_parameters) == (7, True)
    hands.commit(0)
    assert hands.finish.outcome == "Succeeded"


def test_a_gradient_that_came_before_its_worker_was_lost_is_kept():
    hands = Hands([accepted(0, 0, 0, place=0), accepted(0, 1, 1, place=1)], [update(0, 2)])
    hands.commit(0)
    hands.on(events.Left(Member(0, 1), "its connection is gone"))
    hands.commit(1)
    assert len(hands.of(Apply)) == 1
    assert hands.finish.outcome == "Succeeded"


def test_a_gradient_whose_parameters_are_gone_cannot_be_repeated():
    gradients = [accepted(0, 0, 0), accepted(0, 1, 1, applied_at=1)]
    hands = Hands(gradients, [update(0, 1), update(1, 1)])
    hands.commit(0)
    hands.on(events.Left(Member(1, 1), "its connection is gone"))
    assert (hands.finish.outcome, hands.finish.reason) == ("Failed", "ReplayWorkerLost")
    assert "iteration 0" in hands.finish.message


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (events.Exhausted(Member(0, 1), 0, 0), "ReplayDataDiffers"),
        (events.Desire((), 1, 0, stop=True), "Stopped"),
    ],
)
def test_a_replay_that_cannot_go_on_ends_and_never_hangs(event, reason):
    hands = Hands([accepted(0, 0, 0)], [update(0, 1)])
    hands.on(event)
    assert hands.finish.reason == reason
    assert isinstance(hands.of(Record)[-1].line, Ended)
    assert not hands.on(events.Ready(Member(0, 1), -1)), "nothing follows the end"
