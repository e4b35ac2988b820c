"""Workers in threads and in processes, facing a scripted aggregator."""

import json
import multiprocessing.connection
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from scripted_aggregator import DEADLINE, ScriptedAggregator
from torch import nn

from backupsync.launch import WorkerLaunch, to_environment
from backupsync.local.child import run_role
from backupsync.local.forking import start_process
from backupsync.spec import parse_manifest
from backupsync_worker import session as session_module
from backupsync_worker.session import Session
from backupsync_worker.signals import Stop

PROGRAM = """
import torch
from torch import nn
from backupsync_worker import Program


class Line(Program):
    def __init__(self, **args):
        self.args = args

    def model(self):
        return nn.Linear(2, 1)

    def dataset(self):
        return [(torch.tensor([float(i), 1.0]), torch.tensor([float(i)])) for i in range(32)]

    def loss(self, model, batch):
        x, y = batch
        return ((model(x) - y) ** 2).mean()
"""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def manifest(**changes: Any) -> dict[str, Any]:
    """A small job; `changes` replace whole parts of its spec."""
    spec = {
        "program": {"entrypoint": "line:Line"},
        "aggregation": {
            "workers": 2,
            "backupWorkers": 1,
            "wire": {"chunkBytes": 4096, "heartbeatSeconds": 0.05, "timeoutSeconds": 5},
        },
        "training": {"iterations": 10, "batchSize": 4, "seed": 3, "optimizer": {"name": "SGD", "lr": 0.1}},
    } | changes
    document = {
        "apiVersion": "backupsync.dev/v1alpha1",
        "kind": "BackupSyncJob",
        "metadata": {"name": "line"},
        "spec": spec,
    }
    return parse_manifest(json.dumps(document)).model_dump(by_alias=True, mode="json")


@dataclass
class WorkerThread:
    """A worker whose loop runs in a thread of the test, so that a test may look into it."""

    session: Session
    stop: Stop
    model: nn.Module
    thread: threading.Thread
    error: list[BaseException] = field(default_factory=list)
    steps: list[Any] = field(default_factory=list)

    def why_ended(self) -> str | None:
        return None if self.thread.is_alive() else f"{self.error or 'normally'}"

    def join(self) -> None:
        self.thread.join(DEADLINE)
        assert not self.thread.is_alive(), "the worker's loop did not end"
        if self.error:
            raise self.error[0]


@pytest.fixture
def key() -> bytes:
    return bytes(range(32))


@pytest.fixture
def endpoint(tmp_path_factory) -> str:
    return f"ipc://{tmp_path_factory.mktemp('s')}/a"


@pytest.fixture
def aggregator(endpoint, key):
    peer = ScriptedAggregator(endpoint, key)
    yield peer
    peer.close()


@pytest.fixture
def launch_of(tmp_path, key, endpoint):
    """Make a launch structure; `spec` replaces parts of the manifest's spec, keywords its other fields."""

    def make(spec: dict[str, Any] | None = None, **fields: Any) -> WorkerLaunch:
        key_file = tmp_path / "key"
        key_file.write_text(key.hex())
        (tmp_path / "line.py").write_text(PROGRAM)
        defaults: dict[str, Any] = {
            "job": "line", "uid": "uid-1", "manifest": manifest(**(spec or {})), "key_file": str(key_file),
            "endpoint": endpoint, "rank": 1, "attempt": 0, "program_directory": str(tmp_path),
        }  # fmt: skip
        return WorkerLaunch(**(defaults | fields))

    return make


def line_data() -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(torch.tensor([float(i), 1.0]), torch.tensor([float(i)])) for i in range(32)]


def square(model: nn.Module, batch: Any) -> torch.Tensor:
    x, y = batch
    return ((model(x) - y) ** 2).mean()


@pytest.fixture
def start(launch_of, aggregator):
    """Start a worker in a thread, by the public calls; everything about it may be replaced."""
    started: list[WorkerThread] = []

    def run(
        spec: dict[str, Any] | None = None,
        model: nn.Module | None = None,
        loss: Any = square,
        dataset: Any = None,
        evaluate: Any = None,
        body: Any = None,
        **fields: Any,
    ) -> WorkerThread:
        torch.manual_seed(0)
        stop = Stop()
        session = Session(launch_of(spec, **fields), stop)
        worker = WorkerThread(session, stop, model or nn.Linear(2, 1), threading.Thread())
        data = line_data() if dataset is None else dataset

        def default_body(session: Session) -> None:
            session.attach(worker.model, data, evaluate)
            for step in session:
                worker.steps.append(step)
                session.push(loss(worker.model, session.batch()))

        def guarded() -> None:
            try:
                with session:
                    (body or default_body)(session)
            except BaseException as error:
                worker.error.append(error)

        worker.thread = threading.Thread(target=guarded, daemon=True)
        aggregator.failed = worker.why_ended
        worker.thread.start()
        started.append(worker)
        return worker

    yield run
    for worker in started:
        worker.stop.requested = True
        worker.thread.join(DEADLINE)
        assert not worker.thread.is_alive()


class WorkerProcess:
    """A worker process and what it wrote."""

    def __init__(self, output: Path, process: Any) -> None:
        self._output, self._process = output, process
        self.pid: int = process.pid

    @property
    def output(self) -> str:
        return self._output.read_text() if self._output.exists() else ""

    @property
    def exit_code(self) -> int | None:
        if isinstance(self._process, subprocess.Popen):
            return self._process.poll()
        return self._process.exitcode

    def why_ended(self) -> str | None:
        return None if self.exit_code is None else f"exit code {self.exit_code}\n{self.output}"

    def wait(self) -> int:
        deadline = time.monotonic() + DEADLINE
        while (code := self.exit_code) is None:
            if time.monotonic() > deadline:
                pytest.fail(f"the worker did not end\n{self.output}")
            multiprocessing.connection.wait([], 0.02)
        return code

    def kill(self) -> None:
        if self.exit_code is None:
            self._process.kill()
        self._process.wait() if isinstance(self._process, subprocess.Popen) else self._process.join()
        if not isinstance(self._process, subprocess.Popen):
            self._process.close()


@pytest.fixture
def spawn(launch_of, aggregator, tmp_path):
    """Start a worker process from the forkserver, as the local engine does."""
    started: list[WorkerProcess] = []

    def run(spec: dict[str, Any] | None = None, **fields: Any) -> WorkerProcess:
        log = tmp_path / f"worker-{len(started)}.log"
        launch = launch_of(spec, **fields)
        worker = WorkerProcess(log, start_process(run_role, ("worker", launch, str(log)), "worker"))
        aggregator.failed = worker.why_ended
        started.append(worker)
        return worker

    yield run
    for worker in started:
        worker.kill()


@pytest.fixture
def spawn_interpreter(launch_of, aggregator, tmp_path):
    """Start `python -m backupsync_worker`, as a container does."""
    started: list[WorkerProcess] = []

    def run(
        spec: dict[str, Any] | None = None, fields: dict[str, Any] | None = None, **changes: str | None
    ) -> WorkerProcess:
        log = tmp_path / f"interpreter-{len(started)}.log"
        environment = {**os.environ, **to_environment(launch_of(spec, **(fields or {}))), **changes}
        command = [sys.executable, "-m", "backupsync_worker"]
        with log.open("w") as out:
            process = subprocess.Popen(
                command, env={k: v for k, v in environment.items() if v is not None}, stdout=out, stderr=out
            )
        worker = WorkerProcess(log, process)
        aggregator.failed = worker.why_ended
        started.append(worker)
        return worker

    yield run
    for worker in started:
        worker.kill()


@pytest.fixture
def free_port_taken():
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(autouse=True)
def forget_sessions():
    """A process keeps one session; tests make many."""
    yield
    session_module._sessions.clear()


@pytest.fixture
def scripted():
    """The class of scripted aggregators, for tests that need one of another make."""
    return ScriptedAggregator


class Gate:
    """A loss that stops where a test wants it, and goes on when the test says so."""

    def __init__(self) -> None:
        self._reached, self._opened = threading.Event(), threading.Event()
        self.hear: Callable[[], None] = lambda: None
        """Called once opened: waits for what was said meanwhile to have crossed the socket."""

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        self._reached.set()
        assert self._opened.wait(DEADLINE), "the gate was never opened"
        self.hear()
        return square(model, batch)

    def wait_until_reached(self) -> None:
        assert self._reached.wait(DEADLINE), "the loop's body was never reached"

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
def gate():
    made = Gate()
    yield made
    made.open()
