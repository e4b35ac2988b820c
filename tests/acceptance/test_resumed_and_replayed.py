"""A run that is scaled and whose aggregator is killed, and its replay."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from engine_job import EngineJob
from typer.testing import CliRunner

from backupsync.cli.app import app
from backupsync.local.home import JobDirectory
from backupsync.trace import Membership, Resized, Resumed

SCALE_AT, KILL_AT, END, EVERY = 12, 33, 50, 10


class Story(NamedTuple):
    """The run, and how far it was when its aggregator was killed."""

    job: EngineJob
    killed_at: int
    before: dict[int, int | None]
    after: dict[int, int | None]


@pytest.fixture(scope="module")
def story(module_jobs: Callable[[str], EngineJob]) -> Story:
    job = module_jobs("scaled-and-killed")
    gates = {str(SCALE_AT): str(job.gate("scale")), str(KILL_AT): str(job.gate("kill"))}
    job.write(
        program={"entrypoint": None, "script": "gated.py", "args": {"gates": gates}},
        aggregation={"workers": 2, "backupWorkers": 1},
        training={"iterations": END, "optimizer": {"name": "Adam", "lr": 0.01}, "emaDecay": 0.9},
        checkpoint={"everyIterations": EVERY, "path": str(job.directory / "out")},
    ).start()
    job.wait(lambda: job.traced_iterations() >= SCALE_AT)
    scaled = CliRunner().invoke(
        app, ["scale", job.name, "--workers", "3", "--local", "--state-dir", str(job.state)]
    )
    assert scaled.exit_code == 0, scaled.output
    job.wait(lambda: len(job.live()) == 4)
    job.gate("scale").touch()
    job.wait(lambda: job.traced_iterations() >= KILL_AT)
    before = {rank: job.worker_pid(rank) for rank in range(4)}
    killed_at = job.traced_iterations()
    job.kill(job.aggregator_pid())
    job.wait(lambda: bool(job.lines(Resumed)))
    job.gate("kill").touch()
    job.wait_for_iteration(killed_at + 5)
    after = {rank: job.worker_pid(rank) for rank in range(4)}
    assert job.finish() == 0, job.explain()
    return Story(job, killed_at, before, after)


def replay(story: Story, trace: Path, manifest: Path | None = None) -> tuple[int, str]:
    """`backupsync run --replay TRACE` of the story's job."""
    result = CliRunner().invoke(app, ["run", str(manifest or story.job.manifest), "--replay", str(trace)])
    return result.exit_code, result.output


def copy_of(story: Story, change: Callable[[list[dict]], list[dict]]) -> Path:
    """The trace with its lines changed."""
    lines = [json.loads(line) for line in story.job.home.trace_file.read_text().splitlines()]
    path = story.job.directory / "changed.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in change(lines)))
    return path


def test_n_rises_between_iterations_while_the_job_runs(story: Story) -> None:
    assert [(r.required, r.backups) for r in story.job.lines(Resized)][:1] == [(3, 1)]
    by_number = {u.iteration: u.accepted for u in story.job.updates()}
    assert by_number[0] == 2
    assert by_number[END - 1] == 3


def test_a_new_epoch_goes_on_from_the_newest_checkpoint(story: Story) -> None:
    resumed = story.job.lines(Resumed)
    assert [line.epoch for line in resumed] == [2]
    assert story.killed_at - resumed[0].iteration <= EVERY
    assert resumed[0].iteration == KILL_AT - KILL_AT % EVERY


def test_the_workers_join_the_new_aggregator_as_the_processes_they_were(story: Story) -> None:
    assert None not in story.before.values()
    assert story.after == story.before
    trace = story.job.trace
    afterwards = trace[next(i for i, line in enumerate(trace) if isinstance(line, Resumed)) :]
    joined = {(m.rank, m.attempt) for m in afterwards if isinstance(m, Membership)}
    assert joined == {(rank, 1) for rank in range(4)}


def test_every_update_took_its_n_gradients(story: Story) -> None:
    assert all(update.accepted == update.required for update in story.job.updates())


def test_the_report_counts_what_stands_and_not_what_was_lost(story: Story) -> None:
    assert story.job.report["iterations"] == END
    assert story.job.report["resumes"] == 1
    assert len(story.job.updates()) == END + story.killed_at - KILL_AT + KILL_AT % EVERY


def test_replay_recomputes_it_across_the_resize_and_the_kill_bit_for_bit(story: Story) -> None:
    code, said = replay(story, story.job.home.trace_file)
    assert code == 0, said
    assert f"recomputed {END} iterations to the same parameters, bit for bit" in said


def test_replay_takes_n_from_the_trace_as_a_resize_may_have_come_before_its_first_line(story: Story) -> None:
    manifest = story.job.directory / "resized.yaml"
    manifest.write_text(story.job.manifest.read_text().replace("workers: 2", "workers: 3"))
    code, said = replay(story, story.job.home.trace_file, manifest)
    assert code == 0, said
    assert "bit for bit" in said


def test_replay_refuses_another_manifest(story: Story) -> None:
    manifest = story.job.directory / "other.yaml"
    manifest.write_text(story.job.manifest.read_text().replace("lr: 0.01", "lr: 0.02"))
    code, said = replay(story, story.job.home.trace_file, manifest)
    assert code == 2
    assert "spec.training: differs from the traced run's" in said


def test_replay_refuses_a_trace_with_a_hole(story: Story) -> None:
    def cut(lines: list[dict]) -> list[dict]:
        gone = next(i for i, x in enumerate(lines) if x["kind"] == "gradient" and x["outcome"] == "accepted")
        return lines[:gone] + lines[gone + 1 :]

    code, said = replay(story, copy_of(story, cut))
    assert code == 2
    assert "iteration 0 is not there in whole (1 gradients of 2); the trace was cut" in said


def test_replay_refuses_another_torch(story: Story) -> None:
    def older(lines: list[dict]) -> list[dict]:
        lines[0]["versions"]["torch"] = "1.0.0"
        return lines

    code, said = replay(story, copy_of(story, older))
    assert code == 2
    assert "the trace was made with 1.0.0; the same bits cannot be promised" in said


def test_replay_leaves_nothing_of_its_own_behind(story: Story) -> None:
    assert [p.name for p in (story.job.state / "jobs").iterdir()] == [story.job.name]
    assert isinstance(JobDirectory(story.job.state, story.job.name).read_status().completion_time, float)
