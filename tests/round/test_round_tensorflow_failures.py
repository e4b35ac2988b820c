"""What users of TensorFlow's SyncReplicasOptimizer met, each as a test that it cannot happen here.

The numbers are those of the reports in tensorflow/tensorflow.
"""

from round_dsl import Job

from backupsync.trace import Iteration
from backupsync_aggregator.round import Member, Origin, events


def test_workers_never_drift_apart_7898():
    """Worker 1 stood at step 150 while worker 0 stood at 120."""
    job = Job(workers=2).start()
    for _ in range(50):
        job.push(0)
        job.ready(0)
        assert job.assignments[Member(0, 1)].iteration - job.assignments[Member(1, 1)].iteration <= 0
        job.push(1)


def test_a_fast_worker_cannot_stand_in_for_a_slow_one_11753():
    """The accumulator did not care which worker the gradients came from: one could count twice."""
    job = Job(workers=2).start()
    assert not job.push(0).updates
    assert not job.commit(0).updates
    assert job.ready(0).assigned == []


def test_a_worker_is_told_that_its_gradient_was_dropped_and_its_data_is_not_lost_11660():
    job = Job(workers=1, backups=1, aggregation={"droppedBatches": "Requeue"}).start()
    ticket = job.assignments[Member(1, 1)].ticket
    job.push(0)
    assert job.commit(1).told == [(1, "late")]
    assert ticket in job.round.returned


def test_the_end_of_the_data_does_not_deadlock_20342():
    """60 of 64 replicas to aggregate: stuck for ever after 27 workers had run out of data."""
    job = Job(workers=60, backups=4).start()
    for rank in range(27):
        job.exhaust(rank)
    others = range(27, 64)
    (line,) = job.push(*others).lines(Iteration)
    assert (line.required, line.accepted, line.note) == (60, 37, "EndOfData")
    for rank in others:
        job.exhaust(rank)
    assert job.round.reason == "EndOfData"
    assert job.round.phase == "Evaluating"


def test_a_worker_that_dies_with_its_token_hangs_nobody_5022():
    """A worker took a token and died, and no backup was left."""
    job = Job(workers=2).start()
    ticket = job.assignments[Member(1, 1)].ticket
    job.push(0)
    job.leave(1)
    job.enter(1)
    assert job.assignments[Member(1, 1)].ticket == ticket
    assert job.push(1).updates


def test_not_only_the_chief_finishes_7970():
    """The chief ended and everyone else hung."""
    job = Job(workers=2, backups=1, training={"iterations": 1}).start()
    job.push(0, 1)
    heard = job.evaluated(0)
    assert heard.finish == ("Succeeded", "Completed")
    assert heard.told == [(2, "ended")], "whoever still computes is told, and Finish sends everyone home"


def test_training_starts_whoever_comes_first_13854():
    """Training never started when the hook did not run on all workers, or in the wrong order."""
    job = Job(workers=3, backups=1)
    job.enter(3, 1)
    assert job.enter(2).assigned == [Member(3, 1), Member(1, 1), Member(2, 1)]


def test_a_lost_aggregator_resumes_from_its_checkpoint_7767():
    """The parameter server failed: everybody crashed. The chief failed: training froze."""
    job = Job(workers=2).start()
    job.push(0, 1, 0)
    origin = Origin(
        iteration=job.round.iteration,
        examples=job.round.examples,
        next_ticket=job.round.next_ticket,
        returned=job.round.returned,
        epoch=2,
    )
    successor = Job(workers=2, origin=origin).start()
    assert successor.push(0, 1).updates[0].iteration == 1
    assert successor.commit(0, epoch=1).told == [(0, "unasked")], "no gradient crosses an epoch"


def test_a_lost_backup_worker_stops_nobody_and_comes_back_at_full_pace_7767():
    job = Job(workers=2, backups=1).start()
    job.leave(2)
    assert job.push(0, 1).updates
    assert job.enter(2).assigned == [Member(2, 1)]


def test_a_lost_worker_with_no_backup_stalls_for_a_bounded_time_7767():
    job = Job(workers=2, aggregation={"belowQuorum": {"deadlineSeconds": 30}}).start()
    job.leave(1)
    job.push(0)
    assert job.tick(30).finish == ("Failed", "BelowQuorum")


def test_losing_more_than_b_workers_waits_for_the_engine_or_shrinks():
    for policy, phase in (("Wait", "Training"), ("Shrink", "Training"), ("Fail", "Failed")):
        job = Job(workers=2, backups=1, aggregation={"belowQuorum": {"policy": policy}}).start()
        job.leave(1)
        job.leave(2)
        assert job.round.phase == phase


def test_never_are_more_than_n_gradients_averaged():
    """Those that came between the N-th and the take were averaged too."""
    job = Job(workers=2, backups=3).start()
    heard = job.push(*range(5))
    assert [len(u.contributions) for u in heard.updates] == [2]


def test_the_label_of_a_gradient_is_the_iteration_of_its_parameters():
    """Label and parameters could disagree: a fresh gradient was dropped, or a stale one taken."""
    job = Job(workers=1, backups=1).start()
    job.push(0)
    stale = job.assignments[Member(1, 1)]
    assert job.commit(1, iteration=stale.iteration + 1).told == [(1, "unasked")], "it cannot be relabelled"
    assert job.commit(1).told == [(1, "late")]


def test_a_frozen_worker_costs_one_version_and_not_a_queue():
    job = Job(workers=1, backups=1).start()
    for _ in range(20):
        job.push(0)
    assert [a.member.rank for a in job.heard.all(type(job.assignments[Member(0, 1)]))].count(1) == 1


def test_a_slow_worker_is_not_starved_for_ever():
    """A worker whose token others took did not consume even one mini-batch."""
    job = Job(workers=1, backups=1).start()
    for _ in range(10):
        job.push(0)
    job.push(1)
    assert job.commit(1).told == [(1, "accepted")], "it gets the newest parameters, and its turn"


def test_data_length_may_be_unknown_or_late():
    job = Job(workers=1, training={"epochs": 1}).start()
    job.push(0)
    job.on(events.DataLength(2))
    job.push(0)
    assert job.round.reason == "Completed"
