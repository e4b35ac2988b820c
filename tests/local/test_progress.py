"""Live progress as pictures and lines, from made-up snapshots."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from backupsync.control import AggregatorStatus, MemberStatus
from backupsync.lifecycle.types import JobStatus
from backupsync.local.events import Event
from backupsync.local.observer import Snapshot
from backupsync.local.progress.figures import clock, seconds, slowness
from backupsync.local.progress.plain import PlainProgress, progress_line
from backupsync.local.progress.summary import Ending, render_summary
from backupsync.local.progress.view import render
from backupsync.spec import parse_manifest

MANIFEST = """
apiVersion: backupsync.dev/v1alpha1
kind: BackupSyncJob
metadata: {name: digits}
spec:
  program: {entrypoint: "digits:Digits"}
  aggregation: {workers: 2, backupWorkers: 1}
  training: {iterations: 400, batchSize: 32, optimizer: {lr: 0.1}}
"""


def member(rank, *, attempt=1, state="Live", accepted=100, dropped=10, busy=0.1):
    return MemberStatus(
        rank=rank,
        attempt=attempt,
        start=0,
        state=state,
        phase="compute",
        accepted=accepted,
        dropped=dropped,
        busy_p50_seconds=busy,
    )


def snapshot(*members, mode="BackupSync", required=2, backups=1, phase="Training", **changes):
    status = AggregatorStatus(
        job="digits",
        uid="u",
        epoch=1,
        phase=phase,
        required=required,
        backups=backups,
        iteration=212,
        iterations_total=400,
        examples=13568,
        rate=12.4,
        eta_seconds=75.0,
        loss=0.2314,
        learning_rate=0.1,
        evaluation={"accuracy": 0.941},
        members=members or (member(0), member(1), member(2, busy=0.236, accepted=3, dropped=107)),
    )
    size = "workers: 2, backupWorkers: 1" if mode != "Async" else "workers: 3, mode: Async"
    job = parse_manifest(MANIFEST.replace("workers: 2, backupWorkers: 1", size))
    defaults = {"job": job, "status": JobStatus(phase="Running"), "replicas": (), "aggregator": status}
    return Snapshot(**{**defaults, **changes})


def drawn(shot, width, rows=40):
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(render(shot, rows, width))
    return console.export_text()


@pytest.mark.parametrize("width", [80, 120])
def test_the_picture_says_how_far_how_fast_and_who_is_slow_without_cutting_anything(width):
    text = drawn(snapshot(), width)
    for said in (
        "digits  Training",
        "212/400",
        "12.4/s",
        "1:15 left",
        "0.2314",
        "0.941",
        "slow 2.4×",
        "236 ms",
    ):
        assert said in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width


def test_attempts_are_shown_once_there_is_more_than_one():
    assert "attempt" not in drawn(snapshot(), 80)
    text = drawn(snapshot(member(0), member(1, attempt=2)), 80)
    assert "attempt" in text
    assert "…" not in text


def test_fenced_attempts_give_their_place_to_their_successors():
    text = drawn(snapshot(member(0, state="Fenced"), member(0, attempt=2)), 80)
    assert "fenced" not in text


def test_more_workers_than_fit_are_counted():
    assert "… and 37 more" in drawn(snapshot(*map(member, range(40))), 80, rows=3)


def test_before_the_aggregator_answers_the_picture_says_that_it_starts():
    assert "starting" in drawn(snapshot(aggregator=None, status=JobStatus()), 80)


def test_a_worker_is_slow_at_more_than_one_and_a_half_times_the_median():
    assert slowness([member(0), member(1), member(2, busy=0.151)]) == {2: pytest.approx(1.51)}
    assert slowness([member(0), member(1), member(2, busy=0.149)]) == {}
    assert slowness([member(0, busy=9.0)]) == {}


def test_a_plain_line_says_the_same_in_one_line():
    assert progress_line(snapshot()) == (
        "digits: Training  iteration 212/400  12.4 it/s  loss 0.2314  lr 0.1  accuracy 0.941  "
        "live 3 of 3  dropped 127  eta 1:15"
    )


def test_an_asynchronous_job_is_as_large_as_its_workers_though_one_gradient_makes_an_update():
    shot = snapshot(mode="Async", required=1, backups=0)
    assert "live 3 of 3" in progress_line(shot)
    assert "Async  3 workers  live 3" in drawn(shot, 80)


@pytest.mark.parametrize("phase", ["Suspended", "Succeeded", "Failed"])
def test_a_job_that_is_over_or_suspended_has_neither_live_workers_nor_time_left(phase):
    text = drawn(snapshot(phase=phase, status=JobStatus(phase=phase)), 80)
    assert "212/400" in text
    assert "left" not in text
    assert "live 3" not in text


def test_the_end_says_that_the_evaluation_gave_nothing():
    shot = snapshot()
    status = JobStatus(phase="Succeeded", evaluation_problem="Traceback\n  x\nKeyError: 'y'\n")
    ending = Ending(
        job=shot.job, status=status, report=None, checkpoints="out", trace="t", report_path=Path("r"),
        logs="l", go_on="",
    )  # fmt: skip
    console = Console(file=io.StringIO(), width=80, record=True)
    console.print(render_summary(ending))
    assert "the newest evaluation has no result: KeyError: 'y'" in console.export_text()


def test_plain_progress_speaks_at_once_when_the_phase_changes_and_not_at_every_look():
    out = io.StringIO()
    progress = PlainProgress(out)
    for shot in (snapshot(), snapshot(), snapshot(stopping=True)):
        progress.show(shot)
    assert [line.split("  ")[0] for line in out.getvalue().splitlines()] == [
        "digits: Training",
        "digits: Stopping",
    ]


def test_the_same_last_words_are_shown_once():
    out = io.StringIO()
    progress = PlainProgress(out)
    for rank in range(2):
        event = Event(
            at=0.0,
            kind="Warning",
            reason="Exited",
            message=f"worker {rank}",
            detail="Traceback\nValueError: x",
        )
        progress.tell(event)
    assert out.getvalue().count("Traceback") == 1
    assert "worker 1\n    (as before: ValueError: x)" in out.getvalue()


def test_times_are_written_as_people_read_them():
    assert [seconds(t) for t in (None, 0.00084, 0.0821, 1.243, 187.0)] == [
        "–",
        "840 µs",
        "82.1 ms",
        "1.24 s",
        "3:07",
    ]
    assert clock(3723) == "1:02:03"
