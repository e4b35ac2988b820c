"""A successor beside its predecessor: promoted at its first whole gradient, discarded if it ends before."""

import pytest

from backupsync.control import DesiredMember
from backupsync.lifecycle import with_candidate


def pairs(status) -> list[tuple[int, int, bool]]:
    return [(m.rank, m.attempt, m.candidate) for m in status.members]


@pytest.fixture
def surging(make_world):
    """A job in training with a candidate for rank 1, running beside its predecessor."""
    world = make_world(workers=2, backups=0).up()
    world.status = with_candidate(world.status, 1)
    return world


def test_a_candidate_is_told_and_started_beside_its_predecessor(surging, actions_of):
    made = surging.look()
    assert pairs(made.status) == [(0, 1, False), (1, 1, False), (1, 2, True)]
    assert made.status.desired.members[-1] == DesiredMember(1, 2, candidate=True)
    assert actions_of(made) == ["Tell", "Start worker-1-2"]
    surging.boot()
    waiting = surging.look()
    assert waiting.actions == ()
    assert "worker 1 (attempt 2) is a candidate: no whole gradient from it yet" in waiting.explanation


def test_at_its_first_gradient_it_takes_over_and_the_predecessor_is_stopped(surging, actions_of):
    surging.look()
    surging.boot()
    surging.train()
    made = surging.look()
    assert pairs(made.status) == [(0, 1, False), (1, 2, False)]
    assert actions_of(made) == ["Tell", "Stop worker-1-1"]
    assert "CandidatePromoted" in surging.announced()
    surging.settle()
    assert surging.condition("Ready").status == "True"


def test_a_predecessor_that_was_fenced_proves_the_promotion(surging):
    surging.look()
    surging.boot()
    surging.exit(surging.worker(1), 76)
    made = surging.look()
    assert pairs(made.status) == [(0, 1, False), (1, 2, False)]
    assert all(h.crashes == 0 for h in made.status.ranks)


@pytest.mark.parametrize("code", [0, 1, 65, 75, 76, 137])
def test_a_candidate_that_ends_before_its_first_gradient_is_discarded(surging, actions_of, code):
    surging.look()
    surging.boot()
    candidate = next(id_ for id_ in surging.alive() if id_.attempt == 2)
    surging.exit(candidate, code)
    made = surging.look()
    assert pairs(made.status) == [(0, 1, False), (1, 1, False)]
    assert actions_of(made) == ["Tell"]
    assert all(h.crashes == 0 for h in made.status.ranks)
    assert "CandidateFailed" in surging.announced()


def test_a_candidate_that_vanishes_is_discarded(surging):
    surging.look()
    surging.boot()
    surging.look()
    surging.vanish(next(id_ for id_ in surging.alive() if id_.attempt == 2))
    assert pairs(surging.look().status) == [(0, 1, False), (1, 1, False)]


def test_a_candidate_takes_over_from_a_predecessor_that_crashes(surging, actions_of):
    surging.look()
    surging.boot()
    surging.exit(surging.worker(1), 1)
    made = surging.look()
    assert pairs(made.status) == [(0, 1, False), (1, 2, False)]
    assert actions_of(made) == ["Tell"], "it runs already"


def test_a_rank_has_one_candidate_at_most(surging):
    assert with_candidate(surging.status, 1) == surging.status


def test_only_a_member_can_have_a_candidate(surging):
    with pytest.raises(ValueError, match=r"rank 5 is no member.*\[0, 1\]"):
        with_candidate(surging.status, 5)


def test_attempts_of_discarded_candidates_are_not_used_again(surging):
    surging.look()
    surging.boot()
    surging.exit(next(id_ for id_ in surging.alive() if id_.attempt == 2), 1)
    surging.look()
    assert pairs(with_candidate(surging.status, 1))[-1] == (1, 3, True)


def test_a_rank_that_vanishes_takes_its_candidate_along(surging, actions_of):
    surging.look()
    surging.boot()
    surging.aggregation = {"workers": 1, "backupWorkers": 0}
    made = surging.look()
    assert pairs(made.status) == [(0, 1, False)]
    assert actions_of(surging.look()) == ["Stop worker-1-1", "Stop worker-1-2"]
