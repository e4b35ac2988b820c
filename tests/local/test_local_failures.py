"""What fails while a job runs, and what becomes of the job."""

import signal

from backupsync.trace import Iteration, Membership, Resumed


def test_a_program_that_raises_shows_its_traceback_and_fails_the_job_at_its_limit(job):
    job.write(
        program={"args": {"fail_after": 0, "message": "the data is on fire"}}, runPolicy={"backoffLimit": 1}
    )
    assert job.run() == 1
    progress, summary = job.output.split("tiny  Failed")
    assert progress.count("raise ValueError(self.message)") == 1  # not once per worker and attempt
    assert "BackoffLimitExceeded" in summary
    assert "ValueError: the data is on fire" in job.output
    assert job.status.phase == "Failed"
    assert {c.reason for c in job.status.conditions if c.type == "Failed"} == {"BackoffLimitExceeded"}
    job.wait_until_nothing_is_left()


def test_a_program_that_cannot_be_used_is_not_tried_again(job):
    job.write(program={"entrypoint": "tiny:Broken", "args": {}})
    assert job.run() == 1
    assert {history.attempts for history in job.status.ranks} == {1}
    assert "model" in job.output
    assert {c.reason for c in job.status.conditions if c.type == "Failed"} == {"ProgramRefused"}


def test_with_a_backup_no_iteration_waits_for_a_killed_worker(job):
    job.write(
        program={"args": {"step_seconds": 0.02}},
        aggregation={"workers": 2, "backupWorkers": 1},
        training={"iterations": 60},
    ).start()
    job.wait_for_iteration(5)
    job.kill(job.worker_pid(0))
    assert job.finish() == 0, job.explain()
    assert {line.accepted for line in job.trace if isinstance(line, Iteration)} == {2}


def test_without_backups_a_killed_worker_is_replaced_and_the_job_goes_on(job):
    job.write(program={"args": {"step_seconds": 0.02}}, training={"iterations": 40}).start()
    job.wait_for_iteration(5)
    job.kill(job.worker_pid(1))
    assert job.finish() == 0, job.explain()
    attempts = {h.rank: h.attempts for h in job.status.ranks}
    assert attempts == {0: 1, 1: 2}
    assert any(isinstance(m, Membership) and (m.rank, m.attempt) == (1, 2) for m in job.trace)


def test_more_workers_than_backups_may_die(job):
    job.write(
        program={"args": {"step_seconds": 0.02}},
        aggregation={"workers": 2, "backupWorkers": 1},
        training={"iterations": 60},
    ).start()
    job.wait_for_iteration(5)
    for rank in (0, 1):
        job.kill(job.worker_pid(rank))
    assert job.finish() == 0, job.explain()


def test_a_killed_aggregator_resumes_from_its_checkpoint_under_a_new_epoch(job):
    job.write(program={"args": {"step_seconds": 0.02}}, training={"iterations": 60}).start()
    job.wait_for_iteration(25)
    before = {rank: job.worker_pid(rank) for rank in (0, 1)}
    job.kill(job.aggregator_pid())
    job.wait(lambda: any(isinstance(line, Resumed) for line in job.trace))
    assert {rank: job.worker_pid(rank) for rank in (0, 1)} == before
    assert job.finish() == 0, job.explain()
    resumed = next(line for line in job.trace if isinstance(line, Resumed))
    assert resumed.epoch == 2
    assert resumed.iteration >= 20
    assert job.report["iterations"] == 60


def test_a_killed_engine_leaves_no_process_even_a_frozen_one(job):
    job.write(training={"iterations": 100_000}, aggregation={"workers": 1, "backupWorkers": 1}).start()
    job.wait_for_iteration(1)
    job.wait(lambda: job.worker_pid(1) is not None)
    job.kill(job.worker_pid(1), signal.SIGSTOP)
    job.processes()
    assert job.engine is not None
    job.engine.kill()
    job.engine.wait()
    job.wait_until_nothing_is_left()


def test_a_job_whose_engine_was_killed_goes_on_where_it_was(job):
    job.write(program={"args": {"step_seconds": 0.01}}, training={"iterations": 40}).start()
    job.wait_for_iteration(15)
    assert job.engine is not None
    job.engine.kill()
    job.engine.wait()
    assert job.run() == 0, job.explain()
    assert job.report["iterations"] == 40
    assert job.report["resumes"] == 1
