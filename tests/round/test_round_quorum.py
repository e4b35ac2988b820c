"""Below N live workers: Wait, Shrink or Fail, and never a hang."""

from round_dsl import Job

from backupsync.trace import Iteration


def below(policy, deadline=60.0, minimum=1):
    return {"belowQuorum": {"policy": policy, "deadlineSeconds": deadline, "minimum": minimum}}


def test_wait_waits_for_replacements():
    job = Job(workers=3, aggregation=below("Wait")).start()
    job.leave(2)
    assert job.round.reason == "BelowQuorum"
    job.push(0, 1)
    job.tick(59)
    assert job.round.phase == "Training"
    job.enter(2)
    assert job.round.reason == ""
    assert job.push(2).updates


def test_wait_fails_at_its_deadline():
    job = Job(workers=3, aggregation=below("Wait")).start()
    job.leave(2)
    assert job.tick(60).finish == ("Failed", "BelowQuorum")
    assert "2 workers are live, 3 are needed" in job.round.message


def test_the_deadline_counts_from_the_loss_and_starts_anew_after_recovery():
    job = Job(workers=2, aggregation=below("Wait")).start()
    job.after(1000).leave(1)
    job.tick(50)
    job.enter(1)
    job.leave(1)
    job.tick(50)
    assert job.round.phase == "Training"


def test_a_job_whose_workers_never_come_fails_at_the_deadline_whatever_the_policy():
    for policy in ("Wait", "Fail"):
        job = Job(workers=2, aggregation=below(policy))
        job.enter(0)
        job.tick(59)
        assert job.round.phase == "Joining"
        assert job.tick(1).finish == ("Failed", "BelowQuorum")


def test_backup_workers_may_be_lost_without_going_below_n():
    job = Job(workers=2, backups=1, aggregation=below("Fail")).start()
    job.leave(0)
    job.push(1)
    assert job.push(2).updates


def test_fail_fails_at_once():
    job = Job(workers=2, aggregation=below("Fail")).start()
    assert job.leave(0).finish == ("Failed", "BelowQuorum")


def test_scaling_down_is_no_failure():
    job = Job(workers=3, aggregation=below("Fail")).start()
    job.scale(2)
    assert job.round.phase == "Training"


def test_shrink_goes_on_with_the_live_ones_after_its_deadline():
    job = Job(workers=4, aggregation=below("Shrink")).start()
    job.leave(3)
    job.leave(2)
    job.push(0)
    job.tick(60)
    assert (job.round.required, job.round.reason) == (2, "Shrunk")
    (line,) = job.push(1).lines(Iteration)
    assert (line.required, line.accepted, line.note) == (4, 2, "Shrunk")
    job.push(0)
    assert job.push(1).lines(Iteration)[0].note == "Shrunk"


def test_shrink_completes_the_running_iteration_with_what_was_accepted():
    job = Job(workers=4, aggregation=below("Shrink")).start()
    job.push(0, 1, 2)
    job.leave(3)
    job.leave(2)
    (line,) = job.tick(60).lines(Iteration)
    assert (line.accepted, line.note) == (3, "Shrunk")


def test_a_shrunk_job_grows_again_with_those_who_come_back():
    job = Job(workers=3, aggregation=below("Shrink")).start()
    job.leave(1)
    job.leave(2)
    job.tick(60)
    job.enter(1)
    job.push(0)
    assert job.round.required == 2
    job.enter(2)
    job.push(1, 0, 1)
    assert job.round.required == 3
    job.push(2)
    job.push(0, 1)
    assert job.push(2).lines(Iteration)[0].note is None


def test_shrink_never_goes_below_its_minimum():
    job = Job(workers=4, aggregation=below("Shrink", minimum=3)).start()
    job.leave(2)
    job.leave(3)
    assert job.tick(60).finish == ("Failed", "BelowQuorum")


def test_shrink_begins_a_job_whose_workers_do_not_all_come():
    job = Job(workers=3, aggregation=below("Shrink"))
    job.enter(0, 1)
    job.tick(60)
    assert job.round.phase == "Training"
    job.push(0)
    assert job.push(1).lines(Iteration)[0].note == "Shrunk"


def test_a_shrunk_job_that_loses_more_shrinks_again():
    job = Job(workers=3, aggregation=below("Shrink")).start()
    job.leave(2)
    job.tick(60)
    job.leave(1)
    job.tick(59)
    assert job.round.required == 2
    job.tick(1)
    assert job.push(0).updates


def test_below_n_workers_still_add_to_the_running_iteration():
    job = Job(workers=2).start()
    job.leave(1)
    assert job.commit(0).told == [(0, "accepted")]
