"""Commands that look at a job and change nothing."""

import json
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from backupsync.cli.options import Context, JobName, Local, StateDir, known_job, require_local
from backupsync.errors import BackupSyncError
from backupsync.local.client import read_port
from backupsync.local.events import read_events
from backupsync.local.home import JobDirectory, state_root
from backupsync.local.progress.plain import event_line
from backupsync.local.progress.reasons import reasons_of
from backupsync.local.progress.view import render_status


class Output(StrEnum):
    """How a command answers."""

    TEXT = "text"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("-o", "--output", help="text or json.")]


def list_jobs(local: Local = False, context: Context = None, state_dir: StateDir = None) -> None:
    """List the jobs that are known here."""
    require_local(local, context)
    root = state_root(state_dir)
    table = Table("JOB", "PHASE", "ITERATION", "RUNNING", box=None, padding=(0, 2), header_style="dim")
    for path in sorted(root.glob("jobs/*/run.json")):
        directory = JobDirectory(root, path.parent.name)
        status, pid = directory.read_status(), directory.lock.holder()
        iteration = str(status.progress.iteration) if status.progress else "-"
        table.add_row(directory.name, status.phase, iteration, f"pid {pid}" if pid else "no")
    Console().print(table)


def status(
    job: JobName,
    local: Local = False,
    context: Context = None,
    state_dir: StateDir = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show how the job stands."""
    directory = known_job(job, local, context, state_dir)
    current, pid = directory.read_status(), directory.lock.holder()
    if output is Output.JSON:
        document = {"job": job, "uid": directory.read_facts().uid, "pid": pid}
        typer.echo(json.dumps(document | msgspec.to_builtins(current), indent=2))
        return
    Console().print(render_status(directory.read_job(), current, pid))


def events(job: JobName, local: Local = False, context: Context = None, state_dir: StateDir = None) -> None:
    """Show what happened, and why, in order."""
    directory = known_job(job, local, context, state_dir)
    for happened in read_events(directory.events_file):
        typer.echo(event_line(happened))


def explain(job: JobName, local: Local = False, context: Context = None, state_dir: StateDir = None) -> None:
    """Say why the job stands as it does: conditions, the planner's reasons, who was turned away."""
    directory = known_job(job, local, context, state_dir)
    for line in reasons_of(directory.read_status(), directory.read_explanation()):
        typer.echo(line)


def logs(
    job: JobName,
    rank: Annotated[
        int | None, typer.Option("--rank", metavar="R", help="A worker's; the aggregator's without it.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more.")] = False,
    local: Local = False,
    context: Context = None,
    state_dir: StateDir = None,
) -> None:
    """Print the newest log of a worker or of the aggregator."""
    directory = known_job(job, local, context, state_dir)
    _follow(directory, _newest_log(directory, rank), follow)


def metrics(
    job: JobName,
    local: Local = False,
    context: Context = None,
    state_dir: StateDir = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Print where /metrics are served; with -o json as Prometheus file_sd targets."""
    directory = known_job(job, local, context, state_dir)
    if directory.lock.holder() is None:
        raise BackupSyncError(f"job {job}: is not running, so nothing serves its metrics")
    targets = _targets(directory)
    if output is Output.JSON:
        typer.echo(json.dumps(targets, indent=2))
        return
    for target in targets:
        labels = target["labels"]
        whose = f"{labels['role']} {labels.get('rank', '')}".rstrip()
        typer.echo(f"http://{target['targets'][0]}/metrics  {whose}")


def _targets(directory: JobDirectory) -> list[dict[str, Any]]:
    current = directory.read_status()
    found: list[dict[str, Any]] = []
    epoch = current.aggregator_attempt
    if (port := read_port(directory.http_file(epoch), epoch)) is not None:
        found.append(_target(directory.name, port, {"role": "aggregator"}))
    for member in current.members:
        if (port := read_port(directory.metrics_file(member.rank, member.attempt))) is not None:
            labels = {"role": "worker", "rank": str(member.rank), "attempt": str(member.attempt)}
            found.append(_target(directory.name, port, labels))
    return found


def _target(job: str, port: int, labels: dict[str, str]) -> dict[str, Any]:
    return {"targets": [f"127.0.0.1:{port}"], "labels": {"job": job, **labels}}


def _newest_log(directory: JobDirectory, rank: int | None) -> Path:
    pattern = "aggregator-*.log" if rank is None else f"worker-{rank}-*.log"
    found = sorted(directory.logs.glob(pattern), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        whose = "the aggregator" if rank is None else f"worker {rank}"
        ranks = sorted({int(path.name.split("-")[1]) for path in directory.logs.glob("worker-*.log")})
        raise BackupSyncError(f"job {directory.name}: {whose} has written no log; ranks with one: {ranks}")
    return found[-1]


def _follow(directory: JobDirectory, path: Path, follow: bool) -> None:
    with path.open("r", encoding="utf-8", errors="replace") as file:
        while True:
            text = file.read()
            if text:
                typer.echo(text, nl=False)
            elif not follow or directory.lock.holder() is None:
                return
            else:
                time.sleep(0.2)
