"""Commands that look at a job and change nothing."""

from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from backupsync.cli import cluster_jobs, local_jobs
from backupsync.cli.answers import local_event, print_json, print_reasons, print_structures
from backupsync.cli.cluster_view import event_line as cluster_line
from backupsync.cli.cluster_view import render_job, render_jobs
from backupsync.cli.follow import ENDED, follow_job
from backupsync.cli.log_output import LogChoice, print_cluster_logs, print_local_logs
from backupsync.cli.options import JobName, Output, OutputOption
from backupsync.cli.target import Local, Target, targeted
from backupsync.errors import BackupSyncError
from backupsync.local.events import read_events
from backupsync.local.progress.plain import event_line
from backupsync.local.progress.reasons import reasons_of
from backupsync.local.progress.view import render_status


@targeted
def list_jobs(
    target: Target,
    all_namespaces: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="Those of every namespace of the cluster.")
    ] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """List the jobs that are known there."""
    if isinstance(target, Local):
        if all_namespaces:
            raise BackupSyncError(
                "--all-namespaces and --local exclude each other: local jobs have no namespace"
            )
        _list_local(target, output)
        return
    with target.client() as client:
        jobs = client.list(all_namespaces=all_namespaces)
    if output is Output.JSON:
        print_structures(jobs)
    elif not jobs:
        where = "any namespace" if all_namespaces else f"namespace {client.namespace}"
        typer.echo(f"no jobs in {where}", err=True)
    else:
        Console().print(render_jobs(list(jobs), namespaces=all_namespaces))


@targeted
def status(
    target: Target,
    job: JobName,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            "-f",
            help="On a cluster: show it until it ends; exit with 0 if it succeeds, with 1 if it fails.",
        ),
    ] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show how the job stands."""
    if isinstance(target, Local):
        if follow:
            raise BackupSyncError(
                "status: --follow is for clusters; `backupsync run` shows a local job itself"
            )
        directory = target.job(job)
        current, pid = directory.read_status(), directory.lock.holder()
        if output is Output.JSON:
            print_json(
                {"job": job, "uid": directory.read_facts().uid, "pid": pid, "state": current.phase}
                | msgspec.to_builtins(current)
            )
        else:
            Console().print(render_status(directory.read_job(), current, pid))
        return
    with target.client() as client:
        found = follow_job(client, job) if follow else client.get(job)
    if output is Output.JSON:
        print_structures(found)
    else:
        Console(highlight=False).print(render_job(found))
    if follow and found.state != "Succeeded":
        raise typer.Exit(ENDED)


@targeted
def events(target: Target, job: JobName, output: OutputOption = Output.TEXT) -> None:
    """Show what happened, and why, in order."""
    if isinstance(target, Local):
        told = read_events(target.job(job).events_file)
        if output is Output.JSON:
            print_json([local_event(happened) for happened in told])
            return
        for happened in told:
            typer.echo(event_line(happened))
        return
    with target.client() as client:
        found = client.events(job)
    if output is Output.JSON:
        print_structures(found)
        return
    for event in found:
        typer.echo(cluster_line(event))


@targeted
def explain(target: Target, job: JobName, output: OutputOption = Output.TEXT) -> None:
    """Say why the job stands as it does: conditions, what was decided and why, what is in its way."""
    if isinstance(target, Local):
        directory = target.job(job)
        lines = list(reasons_of(directory.read_status(), directory.read_explanation()))
    else:
        with target.client() as client:
            lines = list(client.explain(job))
    print_reasons(job, lines, as_json=output is Output.JSON)


@targeted
def logs(
    target: Target,
    job: JobName,
    rank: Annotated[
        int | None, typer.Option("--rank", metavar="R", help="A worker's; the aggregator's without it.")
    ] = None,
    aggregator: Annotated[bool, typer.Option("--aggregator", help="The aggregator's (default).")] = False,
    everyone: Annotated[
        bool, typer.Option("--all", help="Everyone's, merged, each line with whose it is.")
    ] = False,
    attempt: Annotated[
        int | None,
        typer.Option("--attempt", metavar="A", help="This attempt's (or epoch's); the newest one's without."),
    ] = None,
    previous: Annotated[
        bool, typer.Option("--previous", "-p", help="Those of the attempt before the newest.")
    ] = False,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Wait for more: for the first pod, and for each next attempt."),
    ] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Print the log of a worker, of the aggregator, or of everyone."""
    choice = LogChoice(rank, aggregator, everyone, attempt, previous, follow)
    choice.check()
    if isinstance(target, Local):
        print_local_logs(target.job(job), choice, output)
        return
    with target.client() as client:
        print_cluster_logs(client, job, choice, output)


@targeted
def metrics(target: Target, job: JobName, output: OutputOption = Output.TEXT) -> None:
    """Print where /metrics are served; with -o json as Prometheus file_sd targets."""
    if isinstance(target, Local):
        targets = local_jobs.metrics_targets(target.job(job))
    else:
        with target.client() as client:
            targets = cluster_jobs.metrics_targets(client, job)
    if output is Output.JSON:
        print_json(targets)
        return
    for found in targets:
        labels = found["labels"]
        whose = f"{labels['role']} {labels.get('rank', '')}".rstrip()
        typer.echo(f"http://{found['targets'][0]}/metrics  {whose}")


def _list_local(target: Local, output: Output) -> None:
    table = Table("JOB", "PHASE", "ITERATION", "RUNNING", box=None, padding=(0, 2), header_style="dim")
    found = []
    for directory in local_jobs.directories(target.root):
        status, pid = directory.read_status(), directory.lock.holder()
        iteration = status.progress.iteration if status.progress else None
        found.append({"name": directory.name, "state": status.phase, "iteration": iteration, "pid": pid})
        shown = "-" if iteration is None else str(iteration)
        table.add_row(directory.name, status.phase, shown, f"pid {pid}" if pid else "no")
    if output is Output.JSON:
        print_json(found)
    else:
        Console().print(table)
