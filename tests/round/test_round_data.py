"""The end of the data: the last rounds average fewer, say so, and the job ends. Never a hang."""

from round_dsl import Job

from backupsync.trace import Iteration
from backupsync.wire.messages import Reason
from backupsync_aggregator.round import Member, events
from backupsync_aggregator.round.effects import Tell


def epochs(workers, backups=0, tickets=5, **how):
    """A job of one epoch of so many mini-batches."""
    job = Job(workers, backups, training={"epochs": 1}, **how)
    job.on(events.DataLength(tickets))
    return job.start()


def notes(job):
    return [(line.accepted, line.note) for line in job.heard.lines(Iteration)]


def finish_without_evaluation(job):
    """Nobody has anything to evaluate."""
    for member in [m for m, view in job.round.members.items() if view.evaluating]:
        job.evaluated(member.rank)
    return job.heard.finish


def test_an_epoch_ends_when_its_tickets_do():
    job = epochs(2, tickets=4)
    job.push(0, 1, 0, 1)
    assert finish_without_evaluation(job) == ("Succeeded", "Completed")
    assert notes(job) == [(2, None), (2, None)]
    assert job.round.examples == 16


def test_the_last_round_averages_fewer_than_n_and_says_so():
    job = epochs(2, tickets=5)
    job.push(0, 1, 0, 1)
    last = job.round.members
    job.push(*[m.rank for m, view in last.items() if view.assignment])
    assert notes(job) == [(2, None), (2, None), (1, "EndOfData")]
    assert finish_without_evaluation(job) == ("Succeeded", "Completed")


def test_every_ticket_of_the_epochs_is_handed_out():
    job = Job(3, training={"epochs": 2})
    job.on(events.DataLength(5))
    job.start()
    while job.round.phase == "Training":
        busy = [m.rank for m, view in job.round.members.items() if view.assignment]
        job.push(busy[0])
    assert sorted(job.ledger.handed) == list(range(10))
    assert job.round.examples == 40


def test_a_ticket_reserved_for_one_that_has_enough_goes_to_one_that_has_none():
    job = epochs(3, tickets=6)
    assert job.assignments[Member(2, 1)].next_ticket == 5
    job.push(0, 1, 2)
    job.push(0, 1, 2)
    assert notes(job) == [(3, None), (3, None)]


def test_the_last_round_waits_for_every_gradient_under_way():
    job = epochs(3, tickets=5)
    job.push(0, 1, 2)
    busy = [m.rank for m, view in job.round.members.items() if view.assignment]
    assert len(busy) == 2
    assert not job.push(busy[0]).updates
    assert job.push(busy[1]).updates


def test_a_late_gradient_does_not_keep_the_job_from_ending():
    job = epochs(1, 1, tickets=2)
    job.push(0)
    job.abandon(1)
    assert finish_without_evaluation(job) is not None


def test_with_requeue_dropped_batches_are_made_up_for_at_the_end():
    job = epochs(1, 1, tickets=3, aggregation={"droppedBatches": "Requeue"})
    job.push(0)
    job.push(0)
    assert job.round.phase == "Training", "one batch is still under way, and will come back"
    job.push(1)
    job.ready(0)
    busy = [m.rank for m, view in job.round.members.items() if view.assignment]
    job.push(*busy)
    assert finish_without_evaluation(job) == ("Succeeded", "Completed")
    assert job.round.examples == 12, "all three"


def test_a_batch_that_comes_back_goes_at_once_to_who_waits_for_one():
    job = epochs(1, 1, tickets=2, aggregation={"droppedBatches": "Requeue"})
    assert job.push(0).assigned == []
    assert job.commit(1).assigned == [Member(0, 1)]


def test_the_last_batch_of_a_lost_worker_is_made_up_for_by_its_replacement():
    job = epochs(2, tickets=2)
    job.push(0)
    job.leave(1)
    assert job.round.reason == "BelowQuorum"
    job.enter(1)
    assert job.push(1).lines(Iteration)[0].note is None
    assert finish_without_evaluation(job) == ("Succeeded", "Completed")


def test_the_end_of_the_data_needs_no_quorum():
    job = epochs(3, tickets=4)
    job.push(0, 1, 2)
    busy = [m.rank for m, view in job.round.members.items() if view.assignment]
    job.leave(next(rank for rank in range(3) if rank not in busy))
    job.push(*busy)
    assert finish_without_evaluation(job) == ("Succeeded", "Completed")


def test_data_that_runs_out_on_one_worker_leaves_the_others_training():
    job = Job(workers=3).start()
    job.exhaust(2)
    job.push(0)
    assert job.push(1).lines(Iteration)[0].note == "EndOfData"
    assert job.ready(2).assigned == []
    job.push(0)
    assert job.push(1).updates


def test_with_enough_others_an_exhausted_worker_is_no_loss():
    job = Job(workers=2, backups=1).start()
    job.exhaust(0)
    job.push(1)
    assert job.push(2).lines(Iteration)[0].note is None


def test_data_that_runs_out_everywhere_ends_the_job():
    job = Job(workers=2).start()
    job.exhaust(0)
    job.push(1)
    job.exhaust(1)
    assert finish_without_evaluation(job) == ("Succeeded", "EndOfData")


def test_what_was_accepted_when_the_data_of_the_last_other_ran_out_is_applied_at_once():
    job = Job(workers=2).start()
    job.push(0)
    (line,) = job.exhaust(1).lines(Iteration)
    assert (line.accepted, line.note) == (1, "EndOfData")


def test_the_ticket_of_an_exhausted_worker_goes_to_another():
    job = Job(workers=2).start()
    ticket = job.assignments[Member(1, 1)].ticket
    job.exhaust(1)
    assert ticket in job.round.returned


def test_epochs_of_data_without_a_length_end_with_the_data():
    job = Job(workers=2, training={"epochs": 1})
    job.on(events.DataLength(None))
    job.start()
    job.push(0, 1)
    job.exhaust(0)
    job.exhaust(1)
    assert finish_without_evaluation(job) == ("Succeeded", "Completed")


def test_an_exhausted_worker_that_goes_home_is_not_waited_for():
    job = Job(workers=2).start()
    job.exhaust(0)
    job.leave(0)
    assert job.push(1).lines(Iteration)[0].note == "EndOfData"
    job.exhaust(1)
    job.leave(1)
    assert job.heard.finish == ("Succeeded", "EndOfData")


def test_data_without_a_batch_ends_at_once():
    job = Job(workers=1, training={"epochs": 1})
    job.on(events.DataLength(0))
    job.start()
    assert finish_without_evaluation(job) == ("Succeeded", "Completed")


def test_whoever_still_computes_when_the_data_ends_is_told():
    job = epochs(1, 1, tickets=2)
    job.push(0)
    job.tick()
    finish_without_evaluation(job)
    assert [t.reason for t in job.heard.all(Tell)][-1] is Reason.ENDED
