"""The engine's files are edited, damaged or gone while the job runs: it goes on, or ends in clear words."""

import errno
import json
from pathlib import Path

import pytest
from engine_job import make_job

from backupsync.local.home import JobDirectory

LONG = {"iterations": 100_000}
SLOW = {"args": {"step_seconds": 0.02}}


def reasons(job):
    return [json.loads(line)["reason"] for line in job.home.events_file.read_text().splitlines()]


def with_batch_size(text: str) -> str:
    document = json.loads(text)
    document["spec"]["training"]["batchSize"] = 16
    return json.dumps(document)


def test_a_damaged_manifest_is_refused_and_the_job_goes_on_as_it_was(job):
    job.write(training=LONG, program=SLOW).start()
    job.wait_for_iteration(3)
    good = job.home.job_file.read_text()
    for number, bad in enumerate(["{", good.replace('"workers": 2', '"workers": -2'), with_batch_size(good)]):
        job.home.job_file.write_text(bad)
        job.wait(lambda n=number: reasons(job).count("SpecRefused") == n + 1)
    job.home.job_file.unlink()
    job.wait(lambda: reasons(job).count("SpecRefused") == 4)
    job.home.job_file.write_text(good)
    assert job.call("scale", job.name, "--workers", "1", "--local").returncode == 0
    job.wait(lambda: "SpecChanged" in reasons(job))
    job.wait_for_iteration(job.traced_iterations() + 3)
    job.interrupt()
    assert job.finish() == 130, job.explain()


def test_a_state_directory_that_is_gone_ends_the_job_in_clear_words_and_leaves_no_process(job):
    job.write(training=LONG, program=SLOW).start()
    job.wait_for_iteration(3)
    job.processes()
    job.state.rename(job.directory / "elsewhere")
    assert job.finish() == 2
    assert "cannot be written" in job.output
    assert "Traceback" not in job.output
    job.wait_until_nothing_is_left()


def test_while_the_status_cannot_be_written_training_goes_on_and_nothing_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write, full = JobDirectory.write_status, [False]

    def write_status(self, status, *, durable=True):
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, status, durable=durable)

    monkeypatch.setattr(JobDirectory, "write_status", write_status)
    job = make_job(tmp_path / "full", "full")
    try:
        job.write(training={"iterations": 60}, program=SLOW, aggregation={"workers": 1, "backupWorkers": 1})
        job.start()
        job.wait_for_iteration(3)
        full[0] = True
        job.kill(job.worker_pid(0))
        job.wait(lambda: "StateNotWritten" in reasons(job))
        job.wait_for_iteration(job.traced_iterations() + 3)
        assert not job.joined(0, 2)
        full[0] = False
        job.wait(lambda: job.joined(0, 2))
        assert job.finish() == 0, job.explain()
    finally:
        job.clean()
