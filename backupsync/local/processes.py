"""The engine's hands on processes: start, observe, end. One table, one entry per replica.

It decides nothing: what follows an exit is the planner's to say.
"""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import NamedTuple

from backupsync.exits import ExitKind, kind_of
from backupsync.launch import AggregatorLaunch, WorkerLaunch
from backupsync.lifecycle.types import Replica, ReplicaId
from backupsync.local.child import run_role
from backupsync.local.files import tail
from backupsync.local.forking import start_process
from backupsync.local.last_words import LINES, last_words
from backupsync.local.memory import oom_kills


class Spawn(NamedTuple):
    """All it takes to start a process."""

    launch: WorkerLaunch | AggregatorLaunch
    log: Path


Prepare = Callable[[ReplicaId, int], Spawn]
"""From the replica and its number of restarts in place to its spawn."""


class _Entry:
    """One replica: its process while it runs, its end afterwards."""

    def __init__(self, replica: ReplicaId, process: ForkServerProcess, log: Path, starts: int) -> None:
        self.id = replica
        self.process: ForkServerProcess | None = process
        self.pid = process.pid or 0
        self.log = log
        self.starts = starts
        self.exit_code: int | None = None
        self.exit: ExitKind | None = None
        self.words = ""
        self.kill_at: float | None = None
        self.stopping = False

    def view(self) -> Replica:
        phase = "Exited" if self.process is None else "Running"
        return Replica(
            id=self.id,
            phase=phase,  # type: ignore[arg-type]
            exit=self.exit,
            exit_code=self.exit_code,
            message=self.words,
            starts=self.starts,
            stopping=self.stopping and self.process is not None,
        )


class ProcessTable:
    """Every process of a job, by replica."""

    def __init__(self, prepare: Prepare) -> None:
        self._prepare = prepare
        self._entries: dict[ReplicaId, _Entry] = {}
        self._oom_kills = oom_kills()

    def start(self, replica: ReplicaId) -> int | None:
        """Start the replica (in place, if it has exited) and return its pid; None when it runs already."""
        entry = self._entries.get(replica)
        if entry is not None and entry.process is not None:
            return None
        return self._spawn(replica, 0 if entry is None else entry.starts + 1)

    def stop(self, replica: ReplicaId, grace_seconds: float) -> None:
        """Ask it to end, by force after `grace_seconds`; forget it once it has ended."""
        entry = self._entries.get(replica)
        if entry is None:
            return
        if entry.process is None:
            del self._entries[replica]
            return
        if entry.stopping:
            return
        entry.stopping = True
        entry.kill_at = time.monotonic() + grace_seconds
        self._signal(entry, signal.SIGTERM)
        # A frozen process would never see the request.
        self._signal(entry, signal.SIGCONT)

    def keep(self, intended: Callable[[ReplicaId], bool]) -> None:
        """Forget exited replicas that nobody intends any more."""
        for entry in list(self._entries.values()):
            if entry.process is None and not intended(entry.id):
                del self._entries[entry.id]

    def tick(self) -> list[Replica]:
        """Reap what has ended, enforce grace periods; return who ended unasked."""
        ended = []
        for entry in list(self._entries.values()):
            if entry.process is None:
                continue
            if entry.process.exitcode is not None:
                self._reap(entry)
                if entry.stopping:
                    del self._entries[entry.id]
                else:
                    ended.append(entry.view())
            elif entry.kill_at is not None and time.monotonic() >= entry.kill_at:
                self._kill(entry)
        return ended

    def replicas(self) -> tuple[Replica, ...]:
        """What the planner sees."""
        return tuple(entry.view() for _, entry in sorted(self._entries.items()))

    def pid(self, replica: ReplicaId) -> int | None:
        """The pid of a running replica."""
        entry = self._entries.get(replica)
        return entry.pid if entry is not None and entry.process is not None else None

    def sentinels(self) -> list[int]:
        """What becomes readable when a process ends."""
        return [e.process.sentinel for e in self._entries.values() if e.process is not None]

    @property
    def running(self) -> bool:
        """Whether any process is left."""
        return any(entry.process is not None for entry in self._entries.values())

    def next_deadline(self) -> float | None:
        """Seconds until the next grace period ends."""
        times = [e.kill_at for e in self._entries.values() if e.process is not None and e.kill_at is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def kill_all(self) -> None:
        """End everything at once, and wait for it."""
        alive = [entry for entry in self._entries.values() if entry.process is not None]
        for entry in alive:
            self._kill(entry)
        for entry in alive:
            assert entry.process is not None
            entry.process.join()
            self._reap(entry)

    def _spawn(self, replica: ReplicaId, starts: int) -> int:
        launch, log = self._prepare(replica, starts)
        process = start_process(run_role, (replica.role, launch, str(log)), f"{replica.role}-{replica.rank}")
        self._entries[replica] = _Entry(replica, process, log, starts)
        return process.pid or 0

    def _reap(self, entry: _Entry) -> None:
        assert entry.process is not None
        code = entry.process.exitcode
        assert code is not None
        # Whatever the program started and left behind belongs to its process group.
        self._kill(entry)
        entry.process.close()
        entry.process = None
        entry.exit_code = code if code >= 0 else 128 - code
        entry.exit = self._kind(code)
        entry.words = last_words(tail(entry.log, LINES))

    def _kind(self, code: int) -> ExitKind:
        if code != -signal.SIGKILL:
            return kind_of(code)
        # SIGKILL alone does not say who sent it; the kernel's own count does.
        before, self._oom_kills = self._oom_kills, oom_kills()
        grown = before is not None and self._oom_kills is not None and self._oom_kills > before
        return ExitKind.OUT_OF_MEMORY if grown else ExitKind.RETRYABLE

    @staticmethod
    def _signal(entry: _Entry, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(entry.pid, number)

    @staticmethod
    def _kill(entry: _Entry) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(entry.pid, signal.SIGKILL)
        if entry.process is not None and entry.process.exitcode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(entry.pid, signal.SIGKILL)
