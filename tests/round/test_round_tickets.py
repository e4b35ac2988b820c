"""Tickets: strictly increasing, one ahead, and what comes back."""

from round_dsl import Job, spec_of

from backupsync_aggregator.round import Member, Origin
from backupsync_aggregator.round.effects import Assign
from backupsync_aggregator.round.tickets import Tickets, runs_to_the_end


def tickets_of(job):
    return [a.ticket for a in job.heard.all(Assign)]


def test_each_member_knows_its_next_ticket_for_prefetching():
    job = Job(workers=2).start()
    first, second = (job.assignments[Member(r, 1)] for r in (0, 1))
    assert (first.ticket, first.next_ticket, second.ticket, second.next_ticket) == (0, 1, 2, 3)
    job.push(0, 1)
    assert [job.assignments[Member(r, 1)].ticket for r in (0, 1)] == [1, 3]


def test_no_ticket_is_handed_out_twice_while_nobody_leaves():
    job = Job(workers=2, backups=1).start()
    for _ in range(10):
        job.push(0, 1, 2)
    assert len(set(tickets_of(job))) == len(tickets_of(job))


def test_a_successor_goes_on_where_the_checkpoint_left_off():
    job = Job(workers=2, origin=Origin(iteration=7, next_ticket=40, returned=(33, 31), epoch=2)).start()
    assert job.round.iteration == 7
    assert [job.assignments[Member(r, 1)].ticket for r in (0, 1)] == [31, 40]


def test_what_a_successor_should_hand_out_first_is_what_is_unfinished():
    job = Job(workers=2).start()
    job.commit(0)
    assert job.round.returned == (0, 1, 2, 3), "accepted but not applied, reserved, in flight"
    job.commit(1)
    assert job.round.returned == (1, 3), "0 and 2 were applied"
    assert job.round.next_ticket == 4


def test_the_batch_of_a_dropped_gradient_is_discarded_by_default():
    job = Job(workers=1, backups=1).start()
    dropped = job.assignments[Member(1, 1)].ticket
    for _ in range(10):
        job.push(0)
    job.push(1)
    for _ in range(10):
        job.push(0, 1)
    assert tickets_of(job).count(dropped) == 1


def test_with_requeue_a_dropped_batch_comes_back_at_most_so_often():
    job = Job(workers=1, backups=1, aggregation={"droppedBatches": "Requeue", "maxRequeues": 2}).start()
    ticket = job.assignments[Member(1, 1)].ticket
    for _ in range(12):
        job.push(0)
        job.push(1)
    assert tickets_of(job).count(ticket) == 3


def test_with_requeue_an_abandoned_batch_comes_back():
    job = Job(workers=1, backups=1, aggregation={"droppedBatches": "Requeue"}).start()
    ticket = job.assignments[Member(1, 1)].ticket
    job.push(0)
    job.abandon(1)
    job.ready(1)
    assert job.assignments[Member(1, 1)].next_ticket == ticket


def test_with_requeue_an_incomplete_batch_comes_back_and_one_that_is_not_finite_does_not():
    job = Job(workers=2, aggregation={"droppedBatches": "Requeue"}).start()
    incomplete, poisoned = (job.assignments[Member(r, 1)].ticket for r in (0, 1))
    job.commit(0, whole=False)
    job.commit(1, finite=False)
    for _ in range(5):
        job.push(0, 1)
    assert tickets_of(job).count(incomplete) == 2
    assert tickets_of(job).count(poisoned) == 1


def test_a_batch_that_kills_its_worker_does_not_kill_for_ever():
    job = Job(workers=1, backups=1, aggregation={"maxRequeues": 2}).start()
    killer = job.assignments[Member(1, 1)].ticket
    for _ in range(10):
        if job.assignments[Member(1, 1)].ticket == killer:
            job.leave(1)
            job.enter(1)
    assert tickets_of(job).count(killer) == 3


def test_one_ticket_in_four_is_drawn_beforehand_to_run_to_the_end():
    drawn = [runs_to_the_end(1, ticket) for ticket in range(4000)]
    assert 900 < sum(drawn) < 1100
    assert drawn == [runs_to_the_end(1, ticket) for ticket in range(4000)], "by the ticket alone"
    assert drawn != [runs_to_the_end(2, ticket) for ticket in range(4000)]


def test_the_worker_is_told_which_tickets_run_to_the_end():
    job = Job(workers=2, training={"seed": 5}).start()
    for _ in range(10):
        job.push(0, 1)
    assert all(a.to_the_end == runs_to_the_end(5, a.ticket) for a in job.heard.all(Assign))


def test_returned_tickets_go_out_lowest_first():
    tickets = Tickets(10, [7, 3], spec_of().aggregation)
    tickets.give_back(5)
    assert [tickets.take() for _ in range(4)] == [3, 5, 7, 10]


def test_there_is_no_ticket_beyond_the_limit():
    tickets = Tickets(1, [], spec_of().aggregation)
    tickets.end_at(2)
    assert (tickets.take(), tickets.take(), tickets.available) == (1, None, False)
    tickets.give_back(0)
    assert tickets.reserve() is None, "once scarce, none is kept from those that need one"
    assert tickets.take() == 0
