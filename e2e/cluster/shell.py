"""Running short commands, and waiting for what they bring about."""

import fcntl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final, TypeVar

from cluster.errors import ClusterError, EndedError

POLL_SECONDS: Final = 0.1


def run(
    command: Sequence[str | Path],
    *,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    timeout: float | None = 120,
) -> str:
    """Output of a command; with `check`, a ClusterError with what it said if it fails."""
    line = [str(word) for word in command]
    try:
        done = subprocess.run(
            line, check=False, capture_output=True, text=True, env=env, cwd=cwd, input=stdin, timeout=timeout
        )
    except FileNotFoundError as error:
        raise ClusterError(f"{line[0]} is not on this machine: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{' '.join(line)} did not end within {timeout} s") from error
    if check and done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise ClusterError(f"{' '.join(line)} ended with {done.returncode}: {said}")
    return done.stdout


def feed(command: Sequence[str | Path], write: Callable[[IO[bytes]], None], *, timeout: float = 900) -> None:
    """Run a command on what `write` writes into its standard input; it is killed after `timeout` seconds."""
    line = [str(word) for word in command]
    with tempfile.TemporaryFile() as said:
        running = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=said, stderr=said)
        alarm = threading.Timer(timeout, running.kill)
        alarm.start()
        with running:
            assert running.stdin is not None
            with suppress(BrokenPipeError):  # it ended early: its exit code says more
                write(running.stdin)
        alarm.cancel()
        if running.returncode:
            said.seek(0)
            text = said.read().decode(errors="replace").strip()[-2000:]
            raise ClusterError(f"{' '.join(line)} ended with {running.returncode}: {text}")


@contextmanager
def locked(file: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a file: alone, or together with others who only read."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


T = TypeVar("T")


def until(predicate: Callable[[], T], what: str, timeout: float = 60) -> T:
    """The first true value of the predicate. Its errors count as "not yet", but for an EndedError."""
    deadline = time.monotonic() + timeout
    while True:
        trouble: object = None
        try:
            if value := predicate():
                return value
        except EndedError:
            raise
        except (ClusterError, OSError) as error:
            trouble = error
        if time.monotonic() > deadline:
            raise ClusterError(
                f"waited {timeout:g} s in vain for {what}" + (f": {trouble}" if trouble else "")
            )
        time.sleep(POLL_SECONDS)
