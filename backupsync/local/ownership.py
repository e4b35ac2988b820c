"""Whose a checkpoint directory is: a marker that the run which made it leaves there.

A fresh run never trains on from another run's checkpoints in silence, and `--replace` deletes only what the
same job wrote.
"""

import json
import shutil
from pathlib import Path

from backupsync.errors import BackupSyncError
from backupsync.local.files import write_atomically

MARKER = ".backupsync-job.json"


def check(path: Path, job: str, *, replace: bool) -> None:
    """Raise BackupSyncError when a fresh run of `job` must not use `path`."""
    try:
        path.lstat()
        if not path.is_dir():
            raise BackupSyncError(f"spec.checkpoint.path = {str(path)!r}: is no directory")
        if not any(path.iterdir()):
            return
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:  # too long, a NUL in it, not ours to read
        raise BackupSyncError(f"spec.checkpoint.path = {str(path)!r}: cannot be used: {error}") from error
    owner = owner_of(path)
    if owner is None:
        raise BackupSyncError(
            f"spec.checkpoint.path = {str(path)!r}: holds files that no run of BackupSync put there; "
            "name an empty or a new directory"
        )
    if owner != job:
        raise BackupSyncError(
            f"spec.checkpoint.path = {str(path)!r}: holds the checkpoints of job {owner}; "
            "name another directory"
        )
    if not replace:
        raise BackupSyncError(
            f"spec.checkpoint.path = {str(path)!r}: holds the checkpoints of an earlier run of this job; "
            "name another directory, move them away, or let --replace delete them"
        )


def claim(path: Path, job: str, uid: str) -> None:
    """Make the directory and leave the marker. Raises BackupSyncError when it cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_atomically(path / MARKER, json.dumps({"job": job, "uid": uid}).encode() + b"\n", mode=0o644)
    except OSError as error:
        raise BackupSyncError(
            f"spec.checkpoint.path = {str(path)!r}: cannot be written: {error.strerror}"
        ) from error


def owner_of(path: Path) -> str | None:
    """Return the name of the job whose marker stands in `path`."""
    try:
        owner = json.loads((path / MARKER).read_bytes()).get("job")
    except (OSError, ValueError, AttributeError):
        return None
    return owner if isinstance(owner, str) else None


def clear(path: Path, job: str) -> None:
    """Delete the directory of checkpoints if it is this job's own."""
    if owner_of(path) != job:
        return
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise BackupSyncError(f"{path}: cannot be deleted: {error.strerror}") from error
