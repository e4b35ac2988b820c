"""`backupsync run` and `backupsync validate`."""

import sys
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from backupsync.cli.boundary import INTERRUPTED, say
from backupsync.cli.checks import read_job, refuse
from backupsync.cli.options import Manifest, StateDir
from backupsync.errors import BackupSyncError
from backupsync.inject import load_profile
from backupsync.local.home import JobDirectory, state_root
from backupsync.local.observer import Observer, Silent
from backupsync.local.outputs import Outputs
from backupsync.local.preflight import torch_problems, torch_problems_in_fork
from backupsync.local.progress.live import LiveProgress
from backupsync.local.progress.plain import PlainProgress
from backupsync.local.progress.summary import Ending, render_summary
from backupsync.local.run import Prepared, RunOptions, examine, prepare, start
from backupsync.local.signals import Interrupted


class LogFormat(StrEnum):
    """How processes write their logs."""

    TEXT = "text"
    JSON = "json"


def run(
    manifest: Manifest,
    inject: Annotated[
        Path | None, typer.Option(metavar="PROFILE", help="Straggler profile to inject (YAML).")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="JSONL", help="Where the trace is written besides the state.")
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="JSON", help="Where the report is written.")] = None,
    replay: Annotated[
        Path | None,
        typer.Option(metavar="TRACE", help="Recompute a traced run bit for bit instead of a new one."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Delete what an earlier run of this name left, and start anew.")
    ] = False,
    log_format: Annotated[LogFormat, typer.Option(help="Format of the processes' logs.")] = LogFormat.TEXT,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the end.")] = False,
    local: Annotated[  # noqa: ARG001 -- said for clearness
        bool, typer.Option("--local", help="Run as processes of this machine (default).")
    ] = True,
    context: Annotated[
        str | None,
        typer.Option("--context", metavar="CONTEXT", help="Refused: `backupsync submit` is for clusters."),
    ] = None,
    state_dir: StateDir = None,
) -> None:
    """Run the job here: one aggregator and N+b workers.

    Ctrl-C writes a checkpoint and stops; the same command goes on from it. A second Ctrl-C ends at once.
    """
    if context is not None:
        raise BackupSyncError(
            f"--context {context}: `run` works here; for a cluster: "
            f"backupsync submit {manifest} --context {context}"
        )
    job = read_job(manifest)
    if replay is not None:
        # Imports torch, which nothing else here needs.
        from backupsync.local.replay import replay as recompute  # noqa: PLC0415

        raise typer.Exit(recompute(job, manifest, replay))
    options = RunOptions(replace=replace, log_format=log_format, injection=_profile(inject))
    directory = JobDirectory(state_root(state_dir), job.metadata.name)
    outputs = Outputs(directory, trace, report)
    outputs.check()
    with directory.lock.held(job.metadata.name):
        examine(job, directory, options)
        with _patience(quiet):
            refuse(manifest, torch_problems_in_fork(job))
        prepared = prepare(job, manifest, directory, options)
        raise typer.Exit(_run(prepared, outputs, options, quiet))


def validate(manifest: Manifest) -> None:
    """Check a manifest and say everything that is wrong with it at once."""
    job = read_job(manifest)
    refuse(manifest, torch_problems(job))
    aggregation, training = job.spec.aggregation, job.spec.training
    ends = {k: getattr(training, k) for k in ("iterations", "examples", "epochs")}
    end = next(f"{value} {key}" for key, value in ends.items() if value is not None)
    typer.echo(
        f"{manifest}: valid: job {job.metadata.name}, mode {aggregation.mode}, N = {aggregation.workers}, "
        f"b = {aggregation.backup_workers}, batch size {training.batch_size}, {end}"
    )


def _run(prepared: Prepared, outputs: Outputs, options: RunOptions, quiet: bool) -> int:
    observer = _observer(prepared, quiet)
    outputs.link_trace()
    engine = start(prepared, observer, options)
    try:
        status = engine.run()
    except Interrupted:
        observer.close()
        say(f"job {prepared.directory.name}: every process was ended at once; {_how_to_go_on(prepared)}")
        return INTERRUPTED
    finally:
        observer.close()
        outputs.finish()
    ending = Ending(
        job=engine.job,
        status=status,
        report=outputs.report,
        checkpoints=prepared.facts.checkpoint_directory,
        trace=str(outputs.trace_path),
        report_path=outputs.report_path,
        logs=str(prepared.directory.logs),
        go_on=_how_to_go_on(prepared),
    )
    # Where nobody looks at a terminal, lines are not broken: they are searched, not read.
    console = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 1000)
    console.print(render_summary(ending))
    if outputs.problem:
        say(outputs.problem)
    if status.phase == "Succeeded":
        return 0
    return 1 if status.phase == "Failed" else INTERRUPTED


def _patience(quiet: bool) -> AbstractContextManager[object]:
    """Show that something happens while torch is imported."""
    console = Console(stderr=True)
    return console.status("importing torch …") if console.is_terminal and not quiet else nullcontext()


def _observer(prepared: Prepared, quiet: bool) -> Observer:
    if quiet:
        return Silent()
    observer: Observer = LiveProgress() if sys.stderr.isatty() else PlainProgress()
    if prepared.resumed_from is not None:
        say(f"job {prepared.directory.name}: goes on from its newest checkpoint")
    return observer


def _how_to_go_on(prepared: Prepared) -> str:
    return f"go on with `backupsync run {prepared.facts.manifest_source}`"


def _profile(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    profile: dict[str, Any] = load_profile(path).model_dump(mode="json", by_alias=True)
    return profile
