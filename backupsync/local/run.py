"""Running a job: what is checked and written before its first process starts.

Everything that can be refused is refused here, before anything is written.
"""

import time
import uuid
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from backupsync.errors import BackupSyncError
from backupsync.lifecycle.types import JobStatus
from backupsync.local import ownership
from backupsync.local.engine import Engine
from backupsync.local.home import FINISHED, JobDirectory, RunFacts
from backupsync.local.launches import choose_port, worker_threads
from backupsync.local.observer import Observer
from backupsync.spec import BackupSyncJob


class RunOptions(Struct, frozen=True, kw_only=True):
    """What the user asked for beside the manifest."""

    replace: bool = False
    log_format: str = "text"
    injection: dict[str, Any] | None = None


class Prepared(Struct, frozen=True, kw_only=True):
    """A job that may start."""

    directory: JobDirectory
    facts: RunFacts
    resumed_from: JobStatus | None
    """Status of the stopped run that goes on; None for a fresh one."""


def examine(job: BackupSyncJob, directory: JobDirectory, options: RunOptions) -> None:
    """Refuse what must not start, writing nothing; the caller holds the lock. Raises BackupSyncError."""
    choose_port(job.spec)
    if _goes_on(directory, options):
        _examine_stopped(job, directory)
    else:
        ownership.check(_checkpoint_path(job, directory), job.metadata.name, replace=options.replace)


def prepare(job: BackupSyncJob, manifest: Path, directory: JobDirectory, options: RunOptions) -> Prepared:
    """Write what the engine of an examined job needs. Raises BackupSyncError."""
    if _goes_on(directory, options):
        return _resume(job, manifest, directory, options)
    return _begin(job, manifest, directory, options)


def start(prepared: Prepared, observer: Observer, options: RunOptions) -> Engine:
    """Return the engine of a prepared job."""
    return Engine(prepared.directory, prepared.facts, observer, options.log_format)


def _goes_on(directory: JobDirectory, options: RunOptions) -> bool:
    return directory.exists and not options.replace


def _begin(job: BackupSyncJob, manifest: Path, directory: JobDirectory, options: RunOptions) -> Prepared:
    checkpoints = _checkpoint_path(job, directory)
    ownership.clear(checkpoints, job.metadata.name)
    facts = RunFacts(
        uid=str(uuid.uuid4()),
        manifest_source=str(manifest),
        program_directory=str(manifest.parent.absolute()),
        checkpoint_directory=str(checkpoints),
        endpoint_port=choose_port(job.spec),
        threads=worker_threads(job.spec),
        injection=options.injection,
        started=time.time(),
    )
    if directory.path.exists():
        directory.clear()
    # First, as it may be refused: then nothing of the job is written.
    ownership.claim(checkpoints, job.metadata.name, facts.uid)
    directory.create()
    directory.write_job(_with_checkpoint_path(job, checkpoints))
    directory.write_facts(facts)
    return Prepared(directory=directory, facts=facts, resumed_from=None)


def _examine_stopped(job: BackupSyncJob, directory: JobDirectory) -> None:
    status, facts, name = directory.read_status(), directory.read_facts(), job.metadata.name
    if status.phase in FINISHED:
        raise BackupSyncError(
            f"job {name}: has {status.phase.lower()} already; run it anew with --replace, "
            "or under another metadata.name"
        )
    if str(_checkpoint_path(job, directory)) != facts.checkpoint_directory:
        raise BackupSyncError(
            f"spec.checkpoint.path = {job.spec.checkpoint.path!r}: job {name} was stopped with its "
            f"checkpoints in {facts.checkpoint_directory}; set that path to go on{_from_where(job)}, "
            "or start anew with --replace"
        )


def _resume(job: BackupSyncJob, manifest: Path, directory: JobDirectory, options: RunOptions) -> Prepared:
    status, facts = directory.read_status(), directory.read_facts()
    changed: dict[str, Any] = {
        "manifest_source": str(manifest),
        "program_directory": str(manifest.parent.absolute()),
        "endpoint_port": choose_port(job.spec),
        "injection": options.injection if options.injection is not None else facts.injection,
    }
    facts = msgspec.structs.replace(facts, **changed)
    directory.create()
    directory.write_job(_with_checkpoint_path(job, Path(facts.checkpoint_directory)))
    directory.write_facts(facts)
    return Prepared(directory=directory, facts=facts, resumed_from=status)


def _checkpoint_path(job: BackupSyncJob, directory: JobDirectory) -> Path:
    path = job.spec.checkpoint.path
    return directory.checkpoints if path is None else Path(path).expanduser().absolute()


def _from_where(job: BackupSyncJob) -> str:
    path = job.spec.checkpoint.path
    if path is None or Path(path).expanduser().is_absolute():
        return ""
    return " or run from the directory of before, where the relative path begins"


def _with_checkpoint_path(job: BackupSyncJob, path: Path) -> BackupSyncJob:
    """Return the job as it runs here: checkpoints always have a place, so the aggregator can come back."""
    if job.spec.checkpoint.path is not None:
        return job
    checkpoint = job.spec.checkpoint.model_copy(update={"path": str(path)})
    return job.model_copy(update={"spec": job.spec.model_copy(update={"checkpoint": checkpoint})})
