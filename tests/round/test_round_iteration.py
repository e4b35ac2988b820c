"""One iteration: the first N gradients are averaged, the others dropped, and everyone is told."""

import pytest
from round_dsl import Job

from backupsync.trace import Gradient, Iteration
from backupsync_aggregator.round import Member


def test_the_first_n_gradients_make_the_update_in_order_of_place():
    job = Job(workers=2, backups=1).start()
    assert not job.push(2).updates
    (update,) = job.push(0).updates
    assert update.iteration == 0
    assert [c.member.rank for c in update.contributions] == [2, 0]
    assert [c.place for c in update.contributions] == [0, 1]


def test_an_update_carries_examples_and_clip_scale_of_each_gradient():
    job = Job(workers=2).start()
    job.commit(0, examples=3, scale=0.5)
    (update,) = job.commit(1, examples=4, scale=1.0).updates
    assert [(c.examples, c.scale) for c in update.contributions] == [(3, 0.5), (4, 1.0)]
    assert update.examples_before == 0
    assert job.round.examples == 7


def test_an_accepted_worker_is_told_its_place_before_the_update():
    job = Job(workers=1).start()
    kinds = [type(e).__name__ for e in job.commit(0).effects]
    assert kinds == ["Tell", "Record", "Apply", "Record"]


def test_a_late_gradient_is_dropped_and_its_worker_told():
    job = Job(workers=2, backups=1).start()
    job.push(0, 1)
    late = job.commit(2)
    assert late.told == [(2, "late")]
    assert late.recorded == [(2, "dropped", "late")]


def test_a_gradient_of_an_earlier_iteration_never_counts_in_a_later_one():
    job = Job(workers=2, backups=1).start()
    job.push(0, 1)
    job.push(0)
    assert not job.commit(2).updates
    assert [c.member.rank for c in job.push(1).updates[0].contributions] == [0, 1]


def test_a_worker_whose_gradient_was_accepted_waits_for_the_next_iteration():
    job = Job(workers=2).start()
    job.commit(0)
    assert job.ready(0).assigned == []
    assert job.push(1).assigned == [Member(0, 1), Member(1, 1)]


def test_a_worker_whose_gradient_was_late_goes_on_with_the_newest_parameters_at_once():
    job = Job(workers=2, backups=1).start()
    job.push(0, 1)
    job.push(0, 1)
    job.commit(2)
    job.ready(2)
    assert job.assignments[Member(2, 1)].iteration == 2


def test_those_still_computing_are_noticed_that_they_are_late():
    job = Job(workers=2, backups=2).start()
    job.commit(0)
    assert job.commit(3).noticed == [1, 2]


def test_those_late_since_an_earlier_iteration_are_noticed_once():
    job = Job(workers=2, backups=1).start()
    assert job.push(0, 1).noticed == [2]
    assert job.push(0, 1).noticed == []


def test_nobody_is_noticed_when_late_batches_are_not_abandoned():
    job = Job(workers=1, backups=1, aggregation={"abandonLate": False}).start()
    assert job.commit(0).noticed == []


def test_an_abandoned_batch_is_recorded_as_dropped_and_needs_no_verdict():
    job = Job(workers=1, backups=1).start()
    job.push(0)
    heard = job.abandon(1)
    assert heard.told == []
    assert heard.recorded == [(1, "dropped", "abandoned")]
    assert job.ready(1).assigned == [Member(1, 1)]


def test_an_abandonment_that_answers_nothing_is_ignored():
    job = Job(workers=1, backups=1).start()
    job.push(0)
    job.abandon(1)
    assert job.abandon(1).effects == []


def test_parameters_are_sent_only_to_those_that_do_not_hold_them():
    job = Job(workers=2).start()
    assert job.assignments[Member(0, 1)].send_parameters
    job.push(0, 1)
    assert job.assignments[Member(0, 1)].send_parameters
    job.leave(1)
    job.join(1)
    job.ready(1, holds=1)
    assert not job.assignments[Member(1, 1)].send_parameters


def test_sync_waits_for_all_n():
    job = Job(workers=3, mode="Sync").start()
    assert not job.push(0, 1).updates
    assert len(job.push(2).updates[0].contributions) == 3


def test_an_iteration_is_recorded_with_its_order_statistics():
    job = Job(workers=2, backups=1).start()
    job.after(1.0).commit(0, loss=1.0, examples=1)
    heard = job.after(0.5).commit(2, loss=2.0, examples=3)
    (line,) = heard.lines(Iteration)
    assert (line.iteration, line.required, line.accepted, line.live) == (0, 2, 2, 3)
    assert line.seconds == 1.5
    assert line.examples == 4
    assert line.loss == pytest.approx(1.75), "weighted by examples, as the mean gradient is"
    assert line.note is None


def test_a_gradient_is_recorded_with_its_times():
    job = Job(workers=1, backups=1).start()
    job.after(1.0).push(0)
    (line,) = job.after(1.0).commit(1).lines(Gradient)
    assert (line.arrival_seconds, line.busy_seconds) == (2.0, 2.0), "of the iteration it was computed for"
    assert line.compute_seconds == 0.1
    assert line.injected_seconds is None


def test_a_loss_that_is_not_finite_does_not_spoil_the_mean():
    job = Job(workers=2).start()
    job.commit(0, loss=float("inf"))
    (line,) = job.commit(1, loss=2.0).lines(Iteration)
    assert line.loss == 2.0


def test_members_are_counted_by_outcome():
    job = Job(workers=1, backups=1).start()
    job.push(0)
    job.push(1)
    job.push(1, whole=False)
    fast, slow = job.round.members[Member(0, 1)], job.round.members[Member(1, 1)]
    assert (fast.accepted, fast.commits, fast.last_outcome) == (1, 1, "accepted")
    assert (slow.dropped, slow.refused, slow.commits, slow.last_outcome) == (1, 1, 2, "refused")
    assert slow.assignment is not None
    assert slow.assignment.iteration == 1


def test_a_gradient_in_flight_when_the_job_ends_is_answered():
    job = Job(workers=1, backups=1, training={"iterations": 1}).start()
    job.push(0)
    assert job.commit(1).told == [(1, "ended")]
