"""Gradients that cannot be used: refused with a reason, and a fresh ticket at once."""

import pytest
from round_dsl import Job

from backupsync_aggregator.round import Member


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"finite": False}, "not-finite"),
        ({"whole": False}, "incomplete"),
        ({"examples": 0}, "malformed"),
        ({"scale": -0.1}, "malformed"),
        ({"scale": 1.5}, "malformed"),
        ({"scale": float("nan")}, "malformed"),
    ],
)
def test_a_broken_gradient_is_refused_and_a_fresh_ticket_issued_for_the_same_iteration(broken, reason):
    job = Job(workers=2).start()
    before = job.assignments[Member(0, 1)]
    heard = job.commit(0, **broken)
    assert heard.told == [(0, reason)]
    assert heard.recorded == [(0, "refused", reason)]
    assert heard.assigned == [Member(0, 1)]
    fresh = job.assignments[Member(0, 1)]
    assert (fresh.iteration, fresh.send_parameters) == (0, False)
    assert fresh.ticket != before.ticket
    job.commit(0)
    assert job.commit(1).updates


def test_a_late_gradient_is_late_whatever_else_is_wrong_with_it():
    job = Job(workers=1, backups=1, aggregation={"nonFiniteLimit": 1}).start()
    job.push(0)
    assert job.commit(1, finite=False).told == [(1, "late")]
    assert job.round.phase == "Training"


def test_gradients_that_are_not_finite_in_a_row_end_the_job_as_diverged():
    job = Job(workers=2, aggregation={"nonFiniteLimit": 3}).start()
    job.commit(0, finite=False)
    job.commit(1, finite=False)
    assert job.commit(0, finite=False).finish == ("Failed", "Diverged")
    assert "clipNorm" in job.round.message


def test_an_accepted_gradient_ends_the_row():
    job = Job(workers=2, aggregation={"nonFiniteLimit": 2}).start()
    job.commit(0, finite=False)
    job.commit(1)
    job.commit(0, finite=False)
    assert job.round.phase == "Training"


def test_other_refusals_are_no_divergence():
    job = Job(workers=2, aggregation={"nonFiniteLimit": 1}).start()
    for _ in range(5):
        job.commit(0, whole=False)
    assert job.round.phase == "Training"
