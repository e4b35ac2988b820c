"""Commands that change a job: its size, its suspension, its existence.

They write the manifest of the job; a running engine takes it up, so that the same change twice is one change.
"""

from typing import Annotated

import typer

from backupsync.cli import local_jobs
from backupsync.cli.answers import print_json, print_structures
from backupsync.cli.options import JobName, Output, OutputOption
from backupsync.cli.target import Local, Target, targeted
from backupsync.cluster import Job
from backupsync.errors import BackupSyncError
from backupsync.spec import BackupSyncJob


@targeted
def scale(
    target: Target,
    job: JobName,
    workers: Annotated[int | None, typer.Option("--workers", metavar="N", help="Gradients averaged.")] = None,
    backup_workers: Annotated[
        int | None, typer.Option("--backup-workers", metavar="B", help="Workers beyond N.")
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Change N and b of a running job; no other worker is restarted."""
    if workers is None and backup_workers is None:
        raise BackupSyncError("scale: say what to change: --workers N, --backup-workers B, or both")
    changed: Job | BackupSyncJob
    if isinstance(target, Local):
        wanted = {"workers": workers, "backupWorkers": backup_workers}
        values = {key: value for key, value in wanted.items() if value is not None}
        changed = local_jobs.edit(target.job(job), "aggregation", values)
        aggregation = changed.spec.aggregation
        size = (aggregation.workers, aggregation.backup_workers)
    else:
        with target.client() as client:
            changed = client.scale(job, workers=workers, backup_workers=backup_workers)
        size = (changed.aggregation.workers, changed.aggregation.backup_workers)
    _answer(changed, f"job {job}: N = {size[0]}, b = {size[1]}", output)


@targeted
def suspend(target: Target, job: JobName, output: OutputOption = Output.TEXT) -> None:
    """Write a checkpoint and let every worker go; the engine waits for `resume`."""
    go_on = f"go on with `backupsync resume {job} {target.said}`"
    _answer(_set_suspend(target, job, True), f"job {job}: suspending; {go_on}", output)


@targeted
def resume(target: Target, job: JobName, output: OutputOption = Output.TEXT) -> None:
    """Go on with a suspended job from its checkpoint."""
    _answer(_set_suspend(target, job, False), f"job {job}: resuming", output)


@targeted
def delete(
    target: Target,
    job: JobName,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Delete the job's checkpoints and models too.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="On a cluster: until the job and every pod of it are gone.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="Longest wait; no end without.")
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Delete a job; its checkpoints stay. A local one must not be running, on a cluster its pods end."""
    stays = ""
    if isinstance(target, Local):
        path = local_jobs.delete(target.job(job), checkpoints)
        stays = f"; its checkpoints stay in {path}" if path else ""
    else:
        with target.client() as client:
            claim = client.delete(job, checkpoints=checkpoints, wait=wait, timeout=timeout)
            stays = f"; its checkpoints stay in PersistentVolumeClaim {claim}" if claim else ""
    if output is Output.JSON:
        print_json({"job": job, "deleted": True})
    else:
        typer.echo(f"job {job}: deleted{stays}")


def _set_suspend(target: Target, job: str, wanted: bool) -> Job | BackupSyncJob:
    if isinstance(target, Local):
        return local_jobs.edit(target.job(job), "runPolicy", {"suspend": wanted})
    with target.client() as client:
        return client.suspend(job) if wanted else client.resume(job)


def _answer(changed: Job | BackupSyncJob, text: str, output: Output) -> None:
    if output is Output.TEXT:
        typer.echo(text)
    elif isinstance(changed, Job):
        print_structures(changed)
    else:
        print_json(changed.model_dump(mode="json", by_alias=True))
