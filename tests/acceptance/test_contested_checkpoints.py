"""One run whose disk fills up, and whose checkpoint directory a second aggregator then takes over."""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from engine_job import EngineJob

from backupsync.exits import Exit
from backupsync.local.events import read_events
from backupsync.trace import Iteration, Resumed
from backupsync_aggregator.checkpoints.checkpoint import CheckpointDirectory

FULL_FROM, FULL_UNTIL, CONTESTED_AT, END = 15, 25, 35, 45
ROOM = 512 * 1024
"""Largest file, in bytes, that the aggregator may write while the disk is full; the model takes more."""


class Story(NamedTuple):
    """The run, and what was there to see on the way."""

    job: EngineJob
    said: tuple[str, str]
    """Reason and message of the status while the disk was full."""
    files: list[str]
    """In the checkpoint directory at that time."""
    usable: int
    """Iteration of the checkpoint that could be loaded at that time."""
    failures: float
    afterwards: tuple[int | None, str]
    """Newest checkpoint, and the reason, once there was room again."""
    lower: int
    """How an aggregator of the epoch in office, but another process, ended."""


@pytest.fixture(scope="module")
def story(module_jobs: Callable[[str], EngineJob]) -> Story:
    job = module_jobs("contested")
    gates = {str(number): str(job.gate(str(number))) for number in (FULL_FROM, FULL_UNTIL, CONTESTED_AT)}
    job.write(
        program={"entrypoint": None, "script": "gated.py", "args": {"gates": gates, "size": 40_000}},
        aggregation={"workers": 1},
        training={"iterations": END, "optimizer": {"name": "SGD", "lr": 1e-6}},
        checkpoint={"everyIterations": 10, "path": str(job.directory / "out")},
    ).start()
    job.wait(lambda: job.traced_iterations() >= FULL_FROM)
    said, files, usable, failures = run_out_of_room(job)
    job.wait(lambda: job.traced_iterations() >= CONTESTED_AT)
    job.wait(lambda: look(job)[0] == CONTESTED_AT - 5)  # the status lags behind the trace
    afterwards = look(job)
    lower = contest(job)
    assert job.finish() == 0, job.explain()
    return Story(job, said, files, usable, failures, (afterwards[0], afterwards[1]), lower)


def run_out_of_room(job: EngineJob) -> tuple[tuple[str, str], list[str], int, float]:
    """Train from one gate to the next without room for a checkpoint; then make room."""
    aggregator = psutil.Process(job.aggregator_pid())
    _, hard = aggregator.rlimit(resource.RLIMIT_FSIZE)
    aggregator.rlimit(resource.RLIMIT_FSIZE, (ROOM, hard))
    job.gate(str(FULL_FROM)).touch()
    job.wait(lambda: job.traced_iterations() >= FULL_UNTIL)
    job.wait(lambda: look(job)[1] != "")
    _, reason, message = look(job)
    directory = job.directory / "out"
    loaded = CheckpointDirectory(directory, 3).load_newest(job.home.read_job().spec)
    assert loaded is not None
    files = [path.name for path in directory.iterdir()]
    failures = job.metric("backupsync_checkpoint_failures_total")
    aggregator.rlimit(resource.RLIMIT_FSIZE, (hard, hard))
    job.gate(str(FULL_UNTIL)).touch()
    return (reason, message), files, loaded.iteration, failures


def look(job: EngineJob) -> tuple[int | None, str, str]:
    """Newest checkpoint, reason and message of the aggregator's status."""
    status = job.asked()
    return (status.checkpoint_iteration, status.reason, status.message) if status else (None, "", "")


def contest(job: EngineJob) -> int:
    """Start two more aggregators on the directory: one of the epoch in office, one of the next."""
    lower = job.start_process("aggregator", job.aggregator_launch(1), "lower.log")
    code = job.exit_code(lower)
    job.start_process("aggregator", job.aggregator_launch(2), "higher.log")
    job.wait(lambda: (job.directory / "out" / "claims" / "epoch-00000002.json").exists())
    job.gate(str(CONTESTED_AT)).touch()
    return code


def until_fenced(job: EngineJob) -> list[Iteration]:
    """Updates in the trace before a new aggregator went on."""
    trace = job.trace
    end = next(i for i, line in enumerate(trace) if isinstance(line, Resumed))
    return [line for line in trace[:end] if isinstance(line, Iteration)]


def test_training_goes_on_while_the_disk_is_full(story: Story) -> None:
    numbers = [update.iteration for update in until_fenced(story.job)]
    assert numbers == list(range(CONTESTED_AT))


def test_the_status_says_that_a_checkpoint_could_not_be_written(story: Story) -> None:
    reason, message = story.said
    assert reason == "CheckpointFailed"
    assert "checkpoint at iteration 20 could not be written" in message
    assert "File too large" in message
    assert story.failures >= 1


def test_the_checkpoint_before_stays_loadable_and_nothing_half_written_remains(story: Story) -> None:
    assert story.usable == 10
    assert not [name for name in story.files if name.startswith(".writing")]


def test_checkpoints_are_written_again_once_there_is_room(story: Story) -> None:
    assert story.afterwards == (30, "")


def test_an_aggregator_of_an_epoch_that_is_taken_may_not_begin(story: Story) -> None:
    assert story.lower == Exit.FENCED
    assert "epoch 1 has been claimed" in (story.job.directory / "lower.log").read_text()


def test_an_aggregator_whose_directory_was_taken_over_publishes_nothing_more(story: Story) -> None:
    log = story.job.home.aggregator_log(1).read_text()
    assert "epoch 2 has been claimed; this aggregator's 1 may not write" in log
    ended = [e.message for e in read_events(story.job.home.events_file) if e.reason == "Exited"]
    assert any("aggregator (epoch 1) ended with exit code 76" in message for message in ended)


def test_training_goes_on_from_the_newest_checkpoint_under_an_epoch_above_every_claim(story: Story) -> None:
    resumed = story.job.lines(Resumed)
    assert [(line.epoch, line.iteration) for line in resumed] == [(3, 30)]
    assert story.job.report["iterations"] == END
    names = [path.name for path in Path(story.job.directory / "out").glob("checkpoint-*")]
    assert names
    assert not [name for name in names if "epoch-00000002" in name]
