"""Ctrl-C at the command line, with loader processes and children of the program about."""

import signal

import psutil
import pytest
from local_job import LocalJob

from backupsync.trace import Ended, Resumed


@pytest.fixture
def job(tmp_path):
    made = LocalJob(tmp_path, "interrupted")
    yield made
    made.clean()


def begin(job: LocalJob, since: int) -> None:
    """Run until there is progress, and a worker whose loader process and child run too."""
    job.start()
    job.wait(lambda: job.traced_iterations() > since)
    names = [process.name() for process in job.processes().values()]
    assert "sleep" in names
    assert len(names) >= 5  # forkserver, aggregator, worker, its loader process and its child


def test_ctrl_c_drains_and_the_next_run_goes_on_and_a_second_one_ends_at_once(job, programs) -> None:
    programs(job.directory)
    job.write(
        program={"entrypoint": "faulty:WithChildren"},
        aggregation={"workers": 1},
        training={"iterations": 100_000, "loader": {"workers": 1}},
        checkpoint={"everyIterations": 1_000_000},
    )
    begin(job, 0)
    job.interrupt()
    assert job.finish() == 130, job.explain()
    job.wait_until_nothing_is_left()
    stopped = next(line for line in job.trace if isinstance(line, Ended))
    assert (stopped.outcome, stopped.iteration) == ("Suspended", job.traced_iterations())

    begin(job, stopped.iteration)
    resumed = next(line for line in job.trace if isinstance(line, Resumed))
    assert resumed.iteration == stopped.iteration
    frozen = job.worker_pid(0)
    job.kill(frozen, signal.SIGSTOP)
    job.interrupt()
    job.wait(lambda: "Suspending" in job.output.rpartition("goes on from")[2])
    job.interrupt()
    assert job.finish() == 130
    job.wait_until_nothing_is_left()
    assert not psutil.pid_exists(frozen)
