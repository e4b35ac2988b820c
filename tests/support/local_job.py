"""A real engine with real processes, driven as a user drives it: by the command line and by signals."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from backupsync.lifecycle.types import JobStatus
from backupsync.local.home import JobDirectory
from backupsync.trace import Line, read_trace

PATIENCE_SECONDS = 60.0
TINY = '''
"""The smallest program that trains."""
import time
import torch
from torch.utils.data import TensorDataset
from backupsync_worker import Program

class Tiny(Program):
    def __init__(self, step_seconds=0.0, fail_after=None, message="boom"):
        self.step_seconds, self.fail_after, self.message, self.steps = step_seconds, fail_after, message, 0
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(256, 4, generator=generator)
        self.y = self.x @ torch.tensor([[1.0], [-2.0], [3.0], [0.5]])

    def model(self):
        return torch.nn.Linear(4, 1)

    def dataset(self):
        return TensorDataset(self.x, self.y)

    def loss(self, model, batch):
        self.steps += 1
        time.sleep(self.step_seconds)
        if self.fail_after is not None and self.steps > self.fail_after:
            raise ValueError(self.message)
        x, y = batch
        return torch.nn.functional.mse_loss(model(x), y)

    def evaluate(self, model):
        return {"mse": torch.nn.functional.mse_loss(model(self.x), self.y).item()}


class Broken:
    pass
'''


class LocalJob:
    """One job in a directory of its own."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.name = name
        self.state = directory / "state"
        self.home = JobDirectory(self.state, name)
        self.manifest = directory / "job.yaml"
        self.engine: subprocess.Popen[bytes] | None = None
        self._output = directory / "output.txt"
        self._seen: set[tuple[int, float]] = set()
        (directory / "tiny.py").write_text(TINY)

    def write(self, **changes: Any) -> "LocalJob":
        """Write the manifest; `changes` are sections of the spec, merged into the defaults."""
        spec: dict[str, Any] = {
            "program": {"entrypoint": "tiny:Tiny", "args": {}},
            "aggregation": {"workers": 2, "backupWorkers": 0},
            "training": {
                "iterations": 20,
                "batchSize": 8,
                "threads": 1,
                "optimizer": {"name": "SGD", "lr": 0.05},
            },
            "checkpoint": {"everyIterations": 10},
        }
        for section, values in changes.items():
            spec[section] = {**spec.get(section, {}), **values}
        job = {
            "apiVersion": "backupsync.dev/v1alpha1",
            "kind": "BackupSyncJob",
            "metadata": {"name": self.name},
            "spec": spec,
        }
        self.manifest.write_text(yaml.safe_dump(job))
        return self

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "backupsync.cli", *arguments, "--state-dir", str(self.state)]

    def start(self, *options: str) -> "LocalJob":
        """Start `backupsync run` in the background."""
        with self._output.open("ab") as output:
            self.engine = subprocess.Popen(
                self.command("run", str(self.manifest), *options),
                stdout=output,
                stderr=output,
                cwd=self.directory,
                start_new_session=True,
            )
        return self

    def run(self, *options: str) -> int:
        """Run to the end and return the exit code."""
        return self.start(*options).finish()

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command beside the engine."""
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, cwd=self.directory)

    def finish(self) -> int:
        """Wait until the engine has ended and return its exit code."""
        engine = self.engine
        assert engine is not None
        self.wait(lambda: engine.poll() is not None, ended_is_failure=False)
        return engine.returncode

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.processes()
        assert self.engine is not None
        self.engine.send_signal(signal.SIGINT)

    @property
    def output(self) -> str:
        return self._output.read_text() if self._output.exists() else ""

    @property
    def status(self) -> JobStatus:
        return self.home.read_status()

    @property
    def iteration(self) -> int:
        progress = self.status.progress
        return progress.iteration if progress else 0

    @property
    def trace(self) -> list[Line]:
        return list(read_trace(self.home.trace_file))

    @property
    def report(self) -> dict[str, Any]:
        return json.loads(self.home.report_file.read_text())

    def wait(self, predicate: Callable[[], bool], *, ended_is_failure: bool = True) -> None:
        """Wait until `predicate` holds; fail when the engine ends first, or after a minute."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not predicate():
            assert self.engine is not None
            ended = self.engine.poll() is not None
            if ended and ended_is_failure and not predicate():
                pytest.fail(f"the engine ended with {self.engine.returncode} first\n{self.explain()}")
            if time.monotonic() > deadline:
                pytest.fail(f"did not happen within {PATIENCE_SECONDS:g} s\n{self.explain()}")
            time.sleep(0.02)

    def wait_for_iteration(self, iteration: int) -> None:
        """Wait until so many updates are applied."""
        self.wait(lambda: self.traced_iterations() >= iteration)

    def traced_iterations(self) -> int:
        """Updates in the trace, which is newer than the status."""
        try:
            text = self.home.trace_file.read_bytes()
        except OSError:
            return 0
        return text.count(b'"kind":"iteration"')

    def processes(self) -> dict[int, psutil.Process]:
        """Everything the engine has started and is alive, by pid; remembered for `left_behind`."""
        assert self.engine is not None
        try:
            found = psutil.Process(self.engine.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            found = []
        self._seen |= {(process.pid, process.create_time()) for process in found if process.is_running()}
        return {process.pid: process for process in found}

    def worker_pid(self, rank: int) -> int | None:
        """The pid of the live worker of a rank, by the title it gives itself."""
        return self._by_title(f"backupsync worker {self.name} {rank}")

    def aggregator_pid(self) -> int | None:
        return self._by_title(f"backupsync aggregator {self.name}")

    def kill(self, pid: int | None, number: signal.Signals = signal.SIGKILL) -> None:
        assert pid is not None
        os.kill(pid, number)

    def left_behind(self) -> list[str]:
        """Titles of what outlived the engine."""
        return [" ".join(p.cmdline()) for p in map(_alive, self._seen) if p is not None]

    def wait_until_nothing_is_left(self) -> None:
        """Wait for the helpers of multiprocessing, which end with the engine and not before it."""
        self.wait(lambda: self.left_behind() == [], ended_is_failure=False)

    def explain(self) -> str:
        logs = [
            f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}"
            for path in sorted(self.home.logs.glob("*.log"))
        ]
        return "\n".join([self.output, *logs])

    def clean(self) -> None:
        if self.engine is not None and self.engine.poll() is None:
            self.processes()
            self.engine.kill()
            self.engine.wait()
        for process in map(_alive, self._seen):
            if process is not None:
                process.kill()

    def _by_title(self, title: str) -> int | None:
        for pid, process in self.processes().items():
            try:
                if " ".join(process.cmdline()).strip() == title:
                    return pid
            except psutil.NoSuchProcess:
                continue
        return None


def _alive(seen: tuple[int, float]) -> psutil.Process | None:
    try:
        process = psutil.Process(seen[0])
        same = process.create_time() == seen[1] and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return process if same else None
