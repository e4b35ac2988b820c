"""Restart in place: the process of a container replaces itself by a fresh one, under the same pid.

The pod stays, with its address, its node and its volumes, and the kubelet learns nothing of it: there is no
back-off and no new schedule. Nothing of the old life reaches the new one: children are killed and reaped,
descriptors close, signals are as at the start. Which start it is stands in the environment, and on disk for
a container that was started again.
"""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from msgspec import structs

from backupsync.exits import Exit
from backupsync.launch import START_VARIABLE, WorkerLaunch
from backupsync_worker.signals import STOP

_STANDARD_STREAMS: Final = 3
_COUNTER: Final = "start"

_log = logging.getLogger(__name__)


def counted(launch: WorkerLaunch) -> WorkerLaunch:
    """Return `launch` with a start that no earlier process of this pod had, and note it down.

    Without a scratch directory, or where it cannot be written, the environment alone counts.
    """
    if launch.scratch_directory is None:
        return launch
    file = Path(launch.scratch_directory) / _COUNTER
    earlier = -1
    with contextlib.suppress(OSError, ValueError):
        earlier = int(file.read_text(encoding="ascii"))
    launch = structs.replace(launch, start=max(launch.start, earlier + 1))
    draft = file.with_name(f".{_COUNTER}.{os.getpid()}")
    with contextlib.suppress(OSError):
        draft.write_text(str(launch.start), encoding="ascii")
        draft.replace(file)
    return launch


class Origin(NamedTuple):
    """What a process began with, for the one that takes its place: a program may have changed all of it."""

    environment: dict[str, str]
    directory: str

    @classmethod
    def here(cls) -> "Origin":
        """Take note of it; call this before anything of the user's runs."""
        return cls(dict(os.environ), str(Path.cwd()))

    def start_again(self, start: int) -> Exit:
        """Become a fresh process of this `start`; returns only where that is not to be, with the exit code.

        The session must be closed. SIGTERM stays blocked across the change: `process.begin` answers it.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        if STOP.requested:
            return Exit.SUCCESS
        _log.info("starting again in place (start %d)", start)
        end_children()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        _keep_no_descriptor()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            os.chdir(self.directory)
            os.execve(  # noqa: S606 -- ourselves
                sys.executable,
                [sys.executable, *sys.orig_argv[1:]],
                {**self.environment, START_VARIABLE: str(start)},
            )
        except OSError as error:
            _log.error("cannot start again in place: %s; the engine has to", error)
        return Exit.RESTART


def end_children() -> None:
    """Kill and reap every child, and what they leave to us as the container's first process."""
    while children := list(_children()):
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _children() -> Iterator[int]:
    """Direct children of this process, zombies included."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # After the name in parentheses, which may hold anything: the state, then the parent.
            parent = (entry / "stat").read_bytes().rpartition(b")")[2].split()[1]
            if int(parent) == os.getpid():
                yield int(entry.name)


def _keep_no_descriptor() -> None:
    """Have exec close everything but the standard streams."""
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208 -- names only
        if int(entry) >= _STANDARD_STREAMS:
            with contextlib.suppress(OSError):
                os.set_inheritable(int(entry), False)
