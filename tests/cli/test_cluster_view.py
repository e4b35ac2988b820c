"""The picture of a job on a cluster: complete, and within the width of the terminal."""

from datetime import UTC, datetime

import pytest
from rich.console import Console

from backupsync.cli.cluster_view import age, event_line, job_line, render_job, render_jobs
from backupsync.cluster.types import Event, job_of

NOW = datetime(2026, 1, 2, 3, 7, 15, tzinfo=UTC)
OBJECT = {
    "metadata": {
        "name": "digits",
        "namespace": "team",
        "uid": "u",
        "generation": 1,
        "creationTimestamp": "2026-01-02T03:04:05Z",
    },
    "spec": {"aggregation": {"workers": 4, "backupWorkers": 2}},
}
RUNNING = {
    "state": "Running",
    "observedGeneration": 1,
    "startTime": "2026-01-02T03:04:06Z",
    "workers": {"desired": 6, "live": 5},
    "aggregator": {"epoch": 2, "pod": "digits-aggregator-2", "node": "node-b", "ready": True, "losses": 1},
    "progress": {
        "iteration": 212,
        "iterations": 400,
        "iterationsPerSecond": 8.92,
        "etaSeconds": 21,
        "loss": 0.2345,
        "examples": 27136,
        "evaluation": {"accuracy": 0.91},
        "checkpointIteration": 200,
    },
    "ranks": [
        {
            "rank": r,
            "attempt": 1 + (r == 3),
            "phase": "Running",
            "node": f"node-{r}",
            "crashesTotal": int(r == 3),
        }
        for r in range(6)
    ],
    "conditions": [
        {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "checkpoints go to a claim"},
        {"type": "Ready", "status": "True", "reason": "Training", "message": "5 workers are live"},
        {"type": "Failed", "status": "False", "reason": "NotFinished"},
    ],
}


def job(**status):
    return job_of(OBJECT | {"status": RUNNING | status})


def drawn(renderable, width=100) -> str:
    console = Console(width=width, force_terminal=False, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_picture_fits_and_tells_everything(width):
    text = drawn(render_job(job(), now=NOW), width)
    assert max(map(len, text.splitlines())) <= width
    for said in (
        "digits  Running  BackupSync  N=4 b=2  live 5/6  age 3m  in team",
        "iteration 212/400  8.92/s  0:21 left",
        "loss 0.2345   examples 27,136   accuracy 0.91",
        "digits-aggregator-2  ready  on node-b  1 losses  checkpoint at 200",
        "Ready=True",
    ):
        assert said in text


def test_columns_that_say_nothing_are_left_out():
    text = drawn(render_job(job(), now=NOW))
    assert "attempt" in text
    assert "crashes" in text
    assert "evictions" not in text
    assert "Failed=False" not in text
    quiet = [rank | {"attempt": 1, "crashesTotal": 0} for rank in RUNNING["ranks"]]
    assert "attempt" not in drawn(render_job(job(ranks=quiet), now=NOW))


def test_of_many_ranks_those_that_do_not_run_are_shown_first():
    ranks = [{"rank": r, "phase": "Pending" if r == 90 else "Running"} for r in range(100)]
    text = drawn(render_job(job(ranks=ranks), rows=5, now=NOW))
    assert "90  pending" in text
    assert "… and 95 more" in text


def test_ranks_of_a_finished_job_without_pods_are_left_out():
    ranks = [{"rank": r, "phase": "Absent"} for r in range(3)]
    over = job(state="Succeeded", ranks=ranks, completionTime="2026-01-02T03:05:06Z")
    text = drawn(render_job(over, now=NOW))
    assert "absent" not in text
    assert "took 1:00" in text


def test_a_failure_and_a_refused_suspension_are_shown():
    conditions = [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "rank 1"}]
    assert "Failed=True  BackoffLimitExceeded  rank 1" in drawn(
        render_job(job(state="Failed", conditions=conditions), now=NOW)
    )
    refused = [{"type": "Suspended", "status": "False", "reason": "SuspendRefused", "message": "lost"}]
    document = OBJECT | {"spec": OBJECT["spec"] | {"runPolicy": {"suspend": True}}}
    asked = job_of(document | {"status": RUNNING | {"conditions": refused}})
    text = drawn(render_job(asked, now=NOW))
    assert "Suspending" in text
    assert "SuspendRefused" in text


def test_a_job_that_nobody_has_seen_says_so():
    assert "no operator has looked at it yet" in drawn(render_job(job_of(OBJECT), now=NOW))


def test_jobs_are_a_table():
    text = drawn(render_jobs([job(), job_of(OBJECT)], namespaces=True, now=NOW))
    assert text.split("\n")[0].split() == ["NAMESPACE", "JOB", "STATE", "WORKERS", "ITERATION", "RATE", "AGE"]
    assert text.split("\n")[1].split() == ["team", "digits", "Running", "5/6", "212/400", "8.92/s", "3m"]
    assert text.split("\n")[2].split() == ["team", "digits", "Pending", "0/0", "–", "–", "3m"]


def test_a_line_for_where_no_terminal_is():
    assert job_line(job()) == (
        "digits: Running  iteration 212/400  8.92 it/s  loss 0.2345  accuracy 0.91  live 5 of 6  eta 0:21"
    )
    assert job_line(job_of(OBJECT)) == "digits: Pending  live 0 of 0"


def test_an_event_says_when_what_and_of_whom():
    event = Event(
        time=None, kind="Warning", reason="BackOff", message="m", object="Pod/digits-worker-0-1", count=3
    )
    assert event_line(event) == "--:--:-- warning: BackOff: m  (pod/digits-worker-0-1)  3×"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (200_000, "2d"), (-5, "0s")]
)
def test_ages_are_kubectls(seconds, said):
    assert age(datetime.fromtimestamp(NOW.timestamp() - seconds, UTC), NOW) == said
