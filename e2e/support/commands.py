"""The command line as a user types it, against the cluster, in a test's namespace."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

from support.api import Object
from support.space import Space
from support.waiting import PATIENCE, wait


class Answer(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What `-o json` printed."""
        return json.loads(self.out)


class Running:
    """A command that goes on while the test does."""

    def __init__(self, command: list[str], environment: dict[str, str], folder: Path) -> None:
        self._process = subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))

    def wait_for_line(self, text: str, timeout: float = PATIENCE) -> str:
        """Wait until a line holds `text`; return it."""
        found = lambda: next((line for line in self.lines if text in line), None)  # noqa: E731
        ended = lambda: self._process.poll() is not None and not self._reader.is_alive()  # noqa: E731
        return wait(found, failure=ended, timeout=timeout, explain=lambda: "\n".join(self.lines[-40:]))

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def end(self, timeout: float = PATIENCE) -> int:
        """Wait for the command's end; return its exit code."""
        code = self._process.wait(timeout)
        self._reader.join(timeout)
        return code

    def close(self) -> None:
        """End it, whatever it does."""
        with self._process:
            self._process.kill()
            self._reader.join()


class Commands:
    """`backupsync ... --namespace SPACE`."""

    def __init__(self, space: Space, folder: Path) -> None:
        self.space, self.folder = space, folder
        self._environment = {**os.environ, "BACKUPSYNC_TARGET": "cluster", "COLUMNS": "100", "NO_COLOR": "1"}
        self._running: list[Running] = []

    def __call__(self, *arguments: str, timeout: float = 300.0) -> Answer:
        """Run a command to its end."""
        done = subprocess.run(
            self._command(arguments),
            env=self._environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str) -> Running:
        """Run a command beside the test."""
        running = Running(self._command(arguments), self._environment, self.folder)
        self._running.append(running)
        return running

    def write(self, manifest: Object, name: str = "job.yaml") -> str:
        """Write a manifest into the folder that commands run in; return its name."""
        (self.folder / name).write_text(json.dumps(manifest))
        return name

    def close(self) -> None:
        """End whatever still runs."""
        for running in self._running:
            running.close()

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "backupsync.cli", *arguments, "--namespace", self.space.name]
