"""Ctrl-C, suspension and scaling of a running job."""

import signal

from backupsync.trace import Ended, Iteration, Resized, Resumed

LONG = {"iterations": 100_000}
SLOW = {"args": {"step_seconds": 0.02}}


def digest(job):
    return next(line.parameter_digest for line in reversed(job.trace) if isinstance(line, Ended))


def test_an_interrupted_job_goes_on_to_the_very_same_end(jobs):
    training = {"iterations": 40, "optimizer": {"name": "SGD", "lr": 0.05, "momentum": 0.9}}
    spec = {"training": training, "program": SLOW, "aggregation": {"mode": "Sync", "workers": 1}}
    whole, job = jobs().write(**spec), jobs().write(**spec)
    assert whole.run() == 0, whole.explain()
    job.start()
    job.wait_for_iteration(15)
    job.interrupt()
    assert job.finish() == 130, job.explain()
    assert "go on with `backupsync run" in job.output
    job.wait_until_nothing_is_left()
    assert job.run() == 0, job.explain()
    assert "goes on from its newest checkpoint" in job.output
    assert job.report["iterations"] == 40
    assert digest(job) == digest(whole)


def test_sigterm_stops_like_ctrl_c(job):
    job.write(training=LONG).start()
    job.wait_for_iteration(3)
    job.kill(job.engine.pid, signal.SIGTERM)
    assert job.finish() == 130, job.explain()
    assert job.status.phase == "Suspended"


def test_a_second_ctrl_c_ends_at_once_and_leaves_no_process(job):
    job.write(training=LONG).start()
    job.wait_for_iteration(3)
    # Frozen, the aggregator never writes the checkpoint that the first one asks for.
    job.kill(job.aggregator_pid(), signal.SIGSTOP)
    job.interrupt()
    job.wait(lambda: "Suspending" in job.output)
    job.interrupt()
    assert job.finish() == 130
    assert "every process was ended at once" in job.output
    job.wait_until_nothing_is_left()


def test_scaling_restarts_no_other_worker(job):
    job.write(training=LONG, program=SLOW, aggregation={"workers": 2, "backupWorkers": 1}).start()
    job.wait_for_iteration(3)
    before = {rank: job.worker_pid(rank) for rank in range(3)}
    said = job.call("scale", "tiny", "--workers", "3", "--backup-workers", "1", "--local")
    assert said.stdout == "job tiny: N = 3, b = 1\n", said.stderr
    job.wait(lambda: resizes(job)[-1:] == [(3, 1)])
    assert {rank: job.worker_pid(rank) for rank in range(3)} == before
    assert job.call("scale", "tiny", "--workers", "1", "--local").returncode == 0
    job.wait(lambda: resizes(job)[-1:] == [(1, 1)])
    job.wait(lambda: job.worker_pid(2) is None and job.worker_pid(3) is None)
    assert {rank: job.worker_pid(rank) for rank in range(2)} == {rank: before[rank] for rank in range(2)}
    job.wait_for_iteration(job.traced_iterations() + 3)
    job.interrupt()
    assert job.finish() == 130, job.explain()
    assert {line.accepted for line in job.trace if isinstance(line, Iteration)} == {2, 3, 1}


def test_a_suspended_job_runs_nothing_until_it_is_resumed(job):
    job.write(training=LONG, program=SLOW).start()
    job.wait_for_iteration(5)
    assert job.call("suspend", "tiny", "--local").returncode == 0
    job.wait(lambda: job.status.phase == "Suspended" and job.worker_pid(0) is None)
    job.wait(lambda: job.aggregator_pid() is None)
    suspended_at = job.traced_iterations()
    assert job.call("resume", "tiny", "--local").returncode == 0
    job.wait_for_iteration(suspended_at + 3)
    job.interrupt()
    assert job.finish() == 130, job.explain()
    assert [line.iteration for line in job.trace if isinstance(line, Resumed)] == [suspended_at]


def resizes(job):
    return [(line.required, line.backups) for line in job.trace if isinstance(line, Resized)]
