"""Locks between processes: held by a file descriptor, so that the kernel lets go when the holder dies."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backupsync.errors import BackupSyncError

_PATIENCE_SECONDS = 1.0


class Lock:
    """The lock of a job: whoever holds it is its engine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def held(self, job: str) -> Iterator[None]:
        """Hold the lock. Raises BackupSyncError naming the process that holds it already."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._take(handle, job)
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(handle)

    def holder(self) -> int | None:
        """Return the pid of the engine that holds the lock, None when nobody does."""
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            # A shared lock: two onlookers do not take each other for an engine.
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            text = os.pread(handle, 32, 0)
            return int(text) if text.isdigit() else 0
        else:
            return None
        finally:
            os.close(handle)

    def _take(self, handle: int, job: str) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                # An onlooker holds its shared lock for an instant; an engine holds on.
                if time.monotonic() > deadline:
                    raise BackupSyncError(
                        f"job {job}: is already running (pid {self.holder()}); "
                        "watch it with `backupsync status`, stop it with Ctrl-C where it runs, "
                        "or give this one another metadata.name"
                    ) from None
                time.sleep(0.02)
            else:
                return


@contextmanager
def exclusively(path: Path) -> Iterator[None]:
    """Hold a lock file for the length of a short change, waiting for others."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
