"""Who may speak: joining, READY, leaving, coming back, and going home."""

from round_dsl import Job

from backupsync.trace import Membership
from backupsync_aggregator.round import Member


def events_of(heard):
    return [(m.rank, m.attempt, m.event) for m in heard.lines(Membership)]


def test_training_starts_once_n_members_are_live():
    job = Job(workers=2, backups=1)
    job.enter(2)
    assert (job.round.phase, job.round.reason) == ("Joining", "WaitingForWorkers")
    assert job.enter(0).assigned == [Member(2, 1), Member(0, 1)]
    assert job.round.phase == "Training"


def test_the_order_in_which_members_start_does_not_matter():
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        job = Job(workers=2, backups=1)
        job.enter(*order)
        assert len(job.assignments) == 3


def test_a_member_is_live_before_it_is_ready():
    job = Job(workers=2)
    job.join(0)
    job.join(1)
    assert job.round.live == 2
    assert job.ready(1).assigned == [Member(1, 1)]


def test_ready_is_idempotent():
    job = Job(workers=2).start()
    assert job.ready(0).effects == []
    job.commit(0)
    assert job.ready(0).effects == job.ready(0).effects == []
    assert job.commit(1).assigned == [Member(0, 1)]


def test_a_member_that_leaves_loses_its_assignment_and_its_tickets_come_back_first():
    job = Job(workers=2, backups=1).start()
    lost = job.assignments[Member(0, 1)]
    heard = job.leave(0)
    assert heard.recorded == [(0, "dropped", "not-live")]
    assert events_of(heard) == [(0, 1, "lost")]
    assert {lost.ticket, lost.next_ticket} <= set(job.round.returned)
    assert job.round.members[Member(0, 1)].state == "Lost"
    job.enter(0)
    assert job.assignments[Member(0, 1)].ticket == lost.ticket


def test_what_was_accepted_of_a_member_that_left_stays_counted():
    job = Job(workers=2).start()
    job.commit(0)
    job.leave(0)
    assert [c.member.rank for c in job.commit(1).updates[0].contributions] == [0, 1]


def test_a_member_that_comes_back_in_the_same_iteration_does_not_count_twice():
    job = Job(workers=2, backups=1).start()
    job.push(0)
    job.leave(0)
    assert job.enter(0).assigned == []
    assert [c.member.rank for c in job.push(1).updates[0].contributions] == [0, 1]


def test_a_new_connection_voids_what_was_handed_over_the_old_one():
    job = Job(workers=2).start()
    old = job.assignments[Member(0, 1)]
    heard = job.join(0)
    assert heard.recorded == [(0, "dropped", "not-live")]
    assert job.ready(0, -1).assigned == [Member(0, 1)]
    assert job.assignments[Member(0, 1)].ticket == old.ticket, "the unfinished one goes out first"
    assert job.assignments[Member(0, 1)].send_parameters


def test_a_pair_that_is_not_desired_is_sent_home():
    job = Job(workers=2).start()
    assert job.join((0, 7)).dismissed == [(Member(0, 7), "fenced")]
    assert job.round.live == 2


def test_a_gradient_that_nobody_asked_for_is_refused():
    job = Job(workers=2).start()
    held = job.assignments[Member(1, 1)].ticket
    for forged in ({"ticket": 99}, {"iteration": 5}, {"epoch": 9}, {"attempt": 3}, {"ticket": held}):
        assert job.commit(0, **forged).told == [(0, "unasked")]
    assert job.commit(0).told == [(0, "accepted")], "what it was asked for is still welcome"


def test_a_gradient_sent_twice_counts_once():
    job = Job(workers=2, backups=1).start()
    assert job.commit(0).told == [(0, "accepted")]
    assert job.commit(0).told == [(0, "unasked")]
    assert len(job.push(1).updates[0].contributions) == 2


def test_a_member_that_is_not_live_is_neither_heard_nor_assigned():
    job = Job(workers=2, backups=1).start()
    job.leave(0)
    assert job.ready(0).effects == []
    assert job.commit(0).told == [(0, "unasked")]
    assert job.leave(0).effects == []


def test_a_stranger_is_not_heard():
    job = Job(workers=1, backups=1)
    job.enter(0)
    job.assignments[Member(1, 1)] = job.assignments[Member(0, 1)]
    assert (
        job.ready(1).effects == job.commit(1).effects == job.abandon(1).effects == job.leave(1).effects == []
    )


def test_a_member_no_longer_desired_is_sent_home_and_its_gradient_dropped():
    job = Job(workers=2, backups=1).start()
    heard = job.scale(2, 0)
    assert heard.told == [(2, "not-live")]
    assert heard.dismissed == [(Member(2, 1), "scaled")]
    assert job.round.members[Member(2, 1)].state == "Fenced"


def test_a_replaced_member_is_fenced_for_good():
    job = Job(workers=2, backups=1).start()
    members = [(0, 2), 1, 2]
    assert job.scale(2, 1, members).dismissed == [(Member(0, 1), "fenced")]
    assert job.join((0, 1)).dismissed == [(Member(0, 1), "fenced")]
    assert job.scale(2, 1, [(0, 1), *members]).dismissed == []
    assert job.join((0, 1)).dismissed == [(Member(0, 1), "fenced")], "a revenant, even if it were desired"
    assert job.enter((0, 2)).assigned == [Member(0, 2)]


def test_seats_of_those_sent_home_are_forgotten_in_the_end():
    job = Job(workers=2, backups=1).start()
    job.scale(2, 0)
    job.scale(2, 0)
    assert Member(2, 1) not in job.round.members


def test_a_restart_in_place_is_asked_once_for_each_start():
    job = Job(workers=2, backups=1).start()
    asked = job.ask(restart=(Member(0, 1),))
    assert asked.dismissed == [(Member(0, 1), "restart")]
    assert asked.told == [(0, "not-live")]
    assert job.ask(restart=(Member(0, 1),)).dismissed == []
    assert job.join(0, start=1).dismissed == []
    assert job.ready(0, -1).assigned == [Member(0, 1)]
    job.ask()
    assert job.ask(restart=(Member(0, 1),)).dismissed == [(Member(0, 1), "restart")]


def test_a_restart_that_did_not_take_is_asked_again_when_the_same_start_comes_back():
    job = Job(workers=2, backups=1).start()
    job.ask(restart=(Member(0, 1),))
    assert job.join(0, start=0).dismissed == [(Member(0, 1), "restart")]


def test_joins_and_losses_are_recorded():
    job = Job(workers=1)
    assert events_of(job.join(0, start=3)) == [(0, 1, "joined")]
    assert job.round.members[Member(0, 1)].start == 3
    assert events_of(job.leave(0)) == [(0, 1, "lost")]


def test_whoever_joins_after_the_end_is_sent_home():
    job = Job(workers=1).start()
    job.ask(stop=True)
    assert job.join(0).dismissed == [(Member(0, 1), "suspended")]
    assert job.ready(0).effects == []
