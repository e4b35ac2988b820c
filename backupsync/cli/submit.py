"""`backupsync submit`, `wait` and `get-model`: jobs on a cluster, from their manifest to their model."""

import signal
from pathlib import Path
from typing import Annotated, Final

import typer

from backupsync.cli.answers import print_json, print_structures
from backupsync.cli.boundary import say
from backupsync.cli.cluster_view import job_line
from backupsync.cli.follow import ENDED, follow_job
from backupsync.cli.options import JobName, Manifest, Output, OutputOption
from backupsync.cli.target import Cluster, on_cluster
from backupsync.cluster import Client, Ended, Job, TimedOut
from backupsync.cluster.submission import read_submission
from backupsync.cluster.waiting import UNTIL, why
from backupsync.errors import BackupSyncError

TIMED_OUT: Final = 124
"""Exit code: not in time, as timeout(1) has it."""


@on_cluster
def submit(
    target: Cluster,
    manifest: Manifest,
    program: Annotated[
        Path | None,
        typer.Option(
            "--program",
            metavar="PATH",
            help="File or directory packed into a ConfigMap and mounted at /program. (default: what "
            "spec.program names, beside the manifest, unless the worker template has an image or a mount of "
            "its own)",
        ),
    ] = None,
    no_program: Annotated[
        bool, typer.Option("--no-program", help="Pack nothing: the program is in the worker's image.")
    ] = False,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            "-f",
            help="Show the job until it ends; exit with 0 if it succeeds, with 1 if it fails. Ctrl-C leaves "
            "it running.",
        ),
    ] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Run the job of a manifest on a cluster, with the program beside it.

    The manifest is checked here, all of it at once, and then by the API server, before anything is created.
    """
    if program is not None and no_program:
        raise BackupSyncError("--program and --no-program exclude each other; say one of them")
    with target.client() as client:
        submission = read_submission(
            manifest, target.namespace, client.namespace, packed=program, pack=not no_program
        )
        job = client.send(submission)
        say(f"job {job.name}: submitted to namespace {job.namespace}; program: {submission.said}")
        if submission.note:
            say(f"note: {submission.note}")
        if follow:
            job = _follow(client.within(job.namespace), job, target)
    if output is Output.JSON:
        print_structures(job)
    elif not follow:
        typer.echo(
            f"job {job.name}: follow it with `backupsync logs {job.name} --all -f {_again(target, job)}`"
        )
    if follow and job.state != "Succeeded":
        raise typer.Exit(ENDED)


@on_cluster
def wait(
    target: Cluster,
    job: JobName,
    until: Annotated[
        str, typer.Option("--for", metavar="STATE", help=f"What to wait for: {', '.join(UNTIL)}.")
    ] = "succeeded",
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="Longest wait; no end without.")
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Wait until the job has come to a state.

    Exits with 0 when it has, with 1 when it no longer can (it failed, is gone, or is refused until somebody
    edits it), with 124 at the timeout.
    """
    state = next((known for known in UNTIL if known == until.lower()), None)
    if state is None:
        raise BackupSyncError(f"--for {until!r}: is no state to wait for; there are: {', '.join(UNTIL)}")
    with target.client() as client:
        try:
            found = client.wait(job, state, timeout=timeout)
        except (Ended, TimedOut) as error:
            say(str(error))
            raise typer.Exit(ENDED if isinstance(error, Ended) else TIMED_OUT) from None
    if output is Output.JSON:
        print_structures(found)
    else:
        typer.echo(f"job {job}: deleted" if state == "deleted" else job_line(found))


@on_cluster
def get_model(
    target: Cluster,
    job: JobName,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIRECTORY", help="Where the files are written.")
    ] = Path(),
    ema: Annotated[
        bool, typer.Option("--ema", help="The moving average of the parameters (model-ema.safetensors) too.")
    ] = False,
    image: Annotated[
        str | None,
        typer.Option(
            "--image",
            metavar="IMAGE",
            help="Image of the pod that reads the volume: any with python3. (default: the aggregator's)",
        ),
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Fetch the job's model (model.safetensors): the finished one, or that of its newest checkpoint.

    It is read in the aggregator's pod while that runs, else from the checkpoint volume by a short-lived pod.
    """
    # What ends it politely must not leave its pod behind, either.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with target.client() as client:
        files = client.get_model(job, out, averaged=ema, image=image)
    if output is Output.JSON:
        print_json({"job": job, "files": [str(file) for file in files]})
        return
    for file in files:
        typer.echo(f"{file}  ({file.stat().st_size:,} bytes)")


def _follow(client: Client, job: Job, target: Cluster) -> Job:
    try:
        ended = follow_job(client, job.name)
    except KeyboardInterrupt:
        again = _again(target, job)
        say(f"job {job.name}: goes on; look at it with `backupsync status {job.name} -f {again}`")
        raise
    say(f"{job_line(ended)}{why(ended)}")
    return ended


def _again(target: Cluster, job: Job) -> str:
    """The options that name the job's place again, with its namespace where the manifest named it."""
    said = target.said
    return said if target.namespace else f"{said.replace('--cluster', '').strip()} -n {job.namespace}".strip()
