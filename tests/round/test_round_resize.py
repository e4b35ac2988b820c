"""N and b change while the job runs, between iterations."""

from round_dsl import Job

from backupsync.trace import Iteration, Resized
from backupsync_aggregator.round import Member, Origin


def test_n_falls_at_the_next_boundary():
    job = Job(workers=3).start()
    job.push(0)
    job.scale(2, 1, range(3))
    assert not job.push(1).updates, "the running iteration keeps its N"
    heard = job.push(2)
    assert len(heard.updates[0].contributions) == 3
    (line,) = heard.lines(Resized)
    assert (line.iteration, line.required, line.backups) == (1, 2, 1)
    job.push(0)
    assert job.push(1).updates


def test_n_rises_only_when_enough_have_joined():
    job = Job(workers=2).start()
    job.scale(3)
    job.push(0)
    assert job.push(1).updates
    assert job.round.required == 2
    job.enter(2)
    assert job.round.required == 2, "not in the middle of an iteration"
    job.push(0)
    assert job.push(1).lines(Resized)[0].required == 3
    assert job.round.required == 3


def test_a_newcomer_takes_part_in_the_running_iteration():
    job = Job(workers=2).start()
    job.scale(3)
    assert job.enter(2).assigned == [Member(2, 1)]
    job.push(2)
    assert [c.member.rank for c in job.push(0).updates[0].contributions] == [2, 0]


def test_b_alone_changes_at_the_next_boundary():
    job = Job(workers=2).start()
    job.scale(2, 1)
    job.push(0)
    assert job.round.backups == 0
    assert job.push(1).lines(Resized)[0].backups == 1


def test_b_goes_with_n_when_n_cannot_rise_yet():
    job = Job(workers=2, backups=2).start()
    job.scale(5, 0)
    job.push(0, 1)
    assert (job.round.required, job.round.backups) == (2, 2)


def test_when_workers_go_with_n_an_iteration_that_cannot_complete_ends_with_the_new_n():
    job = Job(workers=3).start()
    job.push(0)
    job.scale(2)
    heard = job.push(1)
    (line,) = heard.lines(Iteration)
    assert (line.required, line.accepted, line.note) == (3, 2, "Resized")
    assert heard.lines(Resized)[0].required == 2


def test_when_workers_go_with_n_an_iteration_with_more_than_the_new_n_completes_with_what_it_has():
    job = Job(workers=4).start()
    job.push(0, 1, 2)
    (line,) = job.scale(2).lines(Iteration)
    assert (line.required, line.accepted, line.note) == (4, 3, "Resized")


def test_what_was_accepted_of_those_who_go_stays_and_may_complete_the_iteration_at_its_old_n():
    job = Job(workers=3).start()
    job.push(2)
    job.scale(2)
    job.push(0)
    (line,) = job.push(1).lines(Iteration)
    assert (line.required, line.accepted, line.note) == (3, 3, None)


def test_before_training_begins_the_desired_n_is_in_force_at_once():
    job = Job(workers=4)
    job.scale(2)
    job.enter(0)
    (line,) = job.enter(1).lines(Resized)
    assert (line.iteration, line.required) == (0, 2)
    assert job.push(0, 1).updates


def test_a_new_epoch_under_another_n_says_so():
    desire = Job.desire(range(3), 3, 0)
    job = Job(workers=2, desire=desire, origin=Origin(iteration=5, epoch=2))
    assert job.enter(0, 1, 2).lines(Resized)[0].required == 3


def test_a_new_epoch_says_which_n_is_in_force_since_the_last_may_have_had_another():
    job = Job(workers=2, origin=Origin(iteration=5, epoch=2))
    assert job.enter(0, 1).lines(Resized)[0].required == 2
    assert Job(workers=2).enter(0, 1).lines(Resized) == []


def test_no_other_worker_is_disturbed_by_a_resize():
    job = Job(workers=2, backups=1).start()
    heard = job.scale(3, 1)
    assert heard.effects == []
