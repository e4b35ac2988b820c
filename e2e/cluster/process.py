"""Processes that outlive the command that started them, found again by a record and ended only by it.

A record holds pid and start time: a pid that was given to another process since is never touched.
"""

import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from cluster.errors import ClusterError, EndedError
from cluster.shell import run, until

ENTER: Final = 'for group in $CLUSTER_GROUPS; do echo $$ >"$group/cgroup.procs"; done; exec "$@"'


def spawn(
    command: Sequence[str | Path], record: Path, log: Path, groups: Sequence[Path], *, child: bool
) -> int:
    """Start a command in a session of its own, inside the control groups, and record it; its pid.

    With `child` the command is one that forks the real program and waits for it: that child is recorded.
    """
    record.parent.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"CLUSTER_GROUPS": " ".join(map(str, groups))}
    to_log = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawn(
        "/bin/sh",
        ["sh", "-c", ENTER, "sh", *map(str, command)],
        environment,
        setsid=True,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), to_log, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
    )
    remember(record, pid)
    if child:
        try:
            pid = until(lambda: _only_child(pid), f"{record.stem} to start", timeout=30)
        except EndedError as error:
            raise EndedError(f"{record.stem} ended at once: {tail(log)}") from error
        remember(record, pid)
    return pid


def _only_child(pid: int) -> int:
    if not alive(pid):
        raise EndedError(f"process {pid} ended before it had started anything")
    words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(words[0]) if words else 0


def tail(log: Path, characters: int = 1500) -> str:
    """The end of a log."""
    return log.read_text(errors="replace")[-characters:] if log.exists() else "(no log)"


def remember(record: Path, pid: int) -> None:
    """Write the record of a process."""
    new = record.with_suffix(".new")
    new.write_text(json.dumps({"pid": pid, "started": _started(pid)}))
    new.rename(record)


def recorded(record: Path) -> int | None:
    """Pid of the recorded process, if it is alive."""
    try:
        values = json.loads(record.read_text())
    except FileNotFoundError:
        return None
    pid = int(values["pid"])
    return pid if alive(pid) and _started(pid) == values["started"] else None


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not yet waited for does not.

    A zombie with threads is still ending: until its last thread is gone, its ports are taken.
    """
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    state = _fields(pid)[:1]
    return state not in ([], ["Z"], ["X"]) or (bool(state) and _threads(pid) > 1)


def _threads(pid: int) -> int:
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())
    except FileNotFoundError:
        return 0


def _started(pid: int) -> int:
    fields = _fields(pid)
    return int(fields[19]) if fields else 0


def _fields(pid: int) -> list[str]:
    """/proc/PID/stat from the state on (proc(5)); nothing if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def end(pid: int, *, grace: float = 10) -> None:
    """Ask a process to end, and make it after `grace` seconds; at once if that is 0."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM if grace else signal.SIGKILL)
    try:
        until(lambda: not alive(pid), f"process {pid} to end", timeout=grace or 30)
    except ClusterError:
        if not grace:
            raise
        end(pid, grace=0)


def stop(record: Path, *, grace: float = 10) -> None:
    """End the recorded process and forget it."""
    if pid := recorded(record):
        end(pid, grace=grace)
    record.unlink(missing_ok=True)


def inhabitants(namespace: str) -> Iterator[int]:
    """Every process in a named network namespace, recorded or not."""
    for word in run(["ip", "netns", "pids", namespace], check=False).split():
        yield int(word)
