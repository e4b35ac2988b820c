"""Commands that change a job: its size, its suspension, its existence.

They write the manifest of the job; a running engine takes it up, so that the same change twice is one change.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from backupsync.cli.options import Context, JobName, Local, StateDir, known_job
from backupsync.errors import BackupSyncError
from backupsync.local import ownership
from backupsync.local.home import FINISHED, JobDirectory
from backupsync.spec import BackupSyncJob
from backupsync.spec.document import remedy_of


def scale(
    job: JobName,
    workers: Annotated[int | None, typer.Option("--workers", metavar="N", help="Gradients averaged.")] = None,
    backup_workers: Annotated[
        int | None, typer.Option("--backup-workers", metavar="B", help="Workers beyond N.")
    ] = None,
    local: Local = False,
    context: Context = None,
    state_dir: StateDir = None,
) -> None:
    """Change N and b of a running job; no other worker is restarted."""
    if workers is None and backup_workers is None:
        raise BackupSyncError("scale: say what to change: --workers N, --backup-workers B, or both")
    directory = known_job(job, local, context, state_dir)
    wanted = {"workers": workers, "backupWorkers": backup_workers}
    changed = _edit(directory, "aggregation", {k: v for k, v in wanted.items() if v is not None})
    aggregation = changed.spec.aggregation
    typer.echo(f"job {job}: N = {aggregation.workers}, b = {aggregation.backup_workers}")


def suspend(job: JobName, local: Local = False, context: Context = None, state_dir: StateDir = None) -> None:
    """Write a checkpoint and let every worker go; the engine waits for `resume`."""
    directory = known_job(job, local, context, state_dir)
    _edit(directory, "runPolicy", {"suspend": True})
    typer.echo(f"job {job}: suspending; go on with `backupsync resume {job} --local`")


def resume(job: JobName, local: Local = False, context: Context = None, state_dir: StateDir = None) -> None:
    """Go on with a suspended job from its checkpoint."""
    directory = known_job(job, local, context, state_dir)
    _edit(directory, "runPolicy", {"suspend": False})
    typer.echo(f"job {job}: resuming")


def delete(
    job: JobName,
    local: Local = False,
    context: Context = None,
    state_dir: StateDir = None,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Delete the job's checkpoints and models too.")
    ] = False,
) -> None:
    """Delete the local state of a job that is not running; its checkpoint directory stays."""
    directory = known_job(job, local, context, state_dir)
    pid = directory.lock.holder()
    if pid is not None:
        raise BackupSyncError(f"job {job}: is running (pid {pid}); stop it first: kill -TERM {pid}")
    manifest, facts = directory.read_job(), directory.read_facts()
    path = Path(facts.checkpoint_directory)
    inside = path.is_relative_to(directory.path)
    if checkpoints or manifest.spec.checkpoint.retention == "Delete":
        ownership.clear(path, job)
    elif inside and any(path.glob("*")):
        raise BackupSyncError(
            f"job {job}: its checkpoints lie inside its state ({path}); move them away, "
            "or say --checkpoints to delete them too"
        )
    with directory.lock.held(job):
        directory.remove()
    typer.echo(f"job {job}: deleted" + (f"; its checkpoints stay in {path}" if path.exists() else ""))


def _edit(directory: JobDirectory, section: str, values: dict[str, Any]) -> BackupSyncJob:
    """Change fields of one section of the spec. Raises BackupSyncError naming field, value and remedy."""
    name = directory.name
    if directory.lock.holder() is None:
        finished = directory.read_status().phase in FINISHED
        remedy = "it has ended" if finished else "change its manifest and start it with `backupsync run`"
        raise BackupSyncError(f"job {name}: is not running; {remedy}")
    with directory.editing():
        document = directory.read_job().model_dump(mode="json", by_alias=True)
        document["spec"][section].update(values)
        try:
            job = BackupSyncJob.model_validate(document)
        except ValidationError as error:
            said = "; ".join(remedy_of(detail["msg"]) for detail in error.errors())
            given = ", ".join(f"{field} = {value}" for field, value in values.items())
            raise BackupSyncError(f"job {name}: spec.{section}: {given}: {said}") from error
        directory.write_job(job)
    return job
