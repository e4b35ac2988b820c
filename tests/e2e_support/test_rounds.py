"""The checker that the cluster's tests read traces with objects to what must never happen."""

import pytest

from backupsync.trace import Gradient, Iteration
from support.rounds import accepted_by, check_rounds


def gradient(iteration, rank, place, **changes):
    told = {"at": 0.0, "attempt": 1, "ticket": 0, "outcome": "accepted", "applied_at": iteration}
    return Gradient(iteration=iteration, rank=rank, place=place, **(told | changes))


def update(iteration, accepted=2, required=2, note=None):
    told = {"at": 0.0, "live": 3, "seconds": 0.1, "examples": 8}
    return Iteration(iteration=iteration, accepted=accepted, required=required, note=note, **told)


def good(iteration):
    late = gradient(iteration, 2, None, outcome="dropped", applied_at=None)
    return [gradient(iteration, 0, 0), gradient(iteration, 1, 1), update(iteration), late]


def test_a_sound_trace_is_counted():
    lines = [*good(0), *good(1), *good(2)]
    assert check_rounds(lines) == 3
    assert accepted_by(lines, 1, 1) == [0, 1, 2]
    assert accepted_by(lines, 2, 1) == []
    assert check_rounds([gradient(0, 0, 0), update(0, accepted=1, note="EndOfData")]) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        [gradient(0, 0, 0), gradient(0, 0, 1, attempt=2), update(0)],
        [gradient(0, 0, 0), update(0)],
        [gradient(0, 0, 0), update(0, accepted=1)],
        [gradient(0, 0, 0), gradient(0, 1, 1), gradient(0, 2, 2), update(0, accepted=3)],
        [gradient(0, 0, 0), gradient(0, 1, 0), update(0)],
        [gradient(0, 0, 0, applied_at=1), *good(1)],
        [*good(0), *good(2)],
        [*good(0), *good(0)],
    ],
    ids=["one rank twice", "one missing", "N not reached", "above N", "places", "stale", "gap", "again"],
)
def test_a_broken_trace_is_refused(wrong):
    with pytest.raises(AssertionError):
        check_rounds(wrong)
