"""A scripted aggregator: a ROUTER that says what a test tells it to, and hears what the worker says."""

import json
import multiprocessing.connection
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import zmq
from torch import nn
from zmq.utils import z85

from backupsync.launch import WorkerLaunch, to_environment
from backupsync.local.child import run_role
from backupsync.local.forking import start_process
from backupsync.spec import parse_manifest
from backupsync.wire.auth import aggregator_proof, derive_key, matches, worker_proof
from backupsync.wire.frames import decode_from_worker, encode
from backupsync.wire.messages import (
    Assign,
    Challenge,
    Chunk,
    Commit,
    Evaluate,
    Hello,
    Leave,
    Parameters,
    Proof,
    Ready,
    Refused,
    Welcome,
)
from backupsync.wire.schema import Schema
from backupsync_worker import session as session_module
from backupsync_worker.session import Session
from backupsync_worker.signals import Stop

DEADLINE = 30.0
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


class ScriptedAggregator:
    """One connection at a time; every wait has a deadline and ends at once when the worker has ended."""

    def __init__(self, endpoint: str, key: bytes, curve: bool = False) -> None:
        self.endpoint, self.key, self._curve = endpoint, key, curve
        self.failed = lambda: None
        """Returns why waiting is pointless."""
        self.route = b""
        self.heard: list[Any] = []
        self.context = zmq.Context()
        self.open()

    def open(self) -> None:
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.linger = 500
        if self._curve:
            self.socket.curve_server = True
            self.socket.curve_secretkey = z85.encode(derive_key(self.key, "curve"))
        self.socket.bind(self.endpoint)

    def shut(self) -> None:
        """Cut every connection."""
        self.socket.close()

    def close(self) -> None:
        self.shut()
        self.context.term()

    def receive(self, kind: Any = object, allow_ended: bool = False, timeout: float = DEADLINE) -> Any:
        """Return the next message of `kind` (and its payload in `.payload`), skipping others."""
        deadline = time.monotonic() + timeout
        while True:
            if self.socket.poll(20):
                route, *frames = self.socket.recv_multipart()
                message, payload = decode_from_worker(frames, 1 << 26)
                self.heard.append(message)
                if isinstance(message, kind):
                    self.route, self.payload = route, payload
                    return message
                continue
            if not allow_ended and (why := self.failed()) is not None:
                pytest.fail(f"the worker ended while {kind} was awaited: {why}")
            if time.monotonic() > deadline:
                pytest.fail(f"no {kind} within {timeout} s; heard {self.heard[-5:]}")

    def say(self, message: Any, payload: Any = None) -> None:
        self.socket.send_multipart([self.route, *encode(message, payload)])

    def greet(self, epoch: int = 1) -> tuple[Hello, Challenge]:
        """HELLO and challenge."""
        return self.challenge(self.receive(Hello), epoch)

    def challenge(self, hello: Hello, epoch: int = 1) -> tuple[Hello, Challenge]:
        challenge = Challenge(secrets.token_bytes(32), epoch)
        self.say(challenge)
        return hello, challenge

    def welcome(self, epoch: int = 1, iteration: int = 0, send_initial: bool = False) -> Hello:
        """The whole join."""
        return self.answer(self.receive(Hello), epoch, iteration, send_initial)

    def answer(self, hello: Hello, epoch: int = 1, iteration: int = 0, send_initial: bool = False) -> Hello:
        """The join, after its HELLO; one that is repeated on a new connection is what counts."""
        proof: Any = hello
        while isinstance(proof, Hello):
            hello, challenge = self.challenge(proof, epoch)
            proof = self.receive((Hello, Proof))
        assert matches(worker_proof(self.key, hello, challenge), proof.mac)
        self.schema = Schema(proof.schema)
        assert self.schema.hash == hello.schema_hash
        self.epoch = epoch
        self.say(Welcome(aggregator_proof(self.key, hello, challenge), epoch, iteration, send_initial))
        return hello

    def refuse(self, code: str, detail: str = "no") -> None:
        self.receive(Hello)
        self.say(Refused(code, detail))

    def parameters(
        self, iteration: int, moving: bytes | None = None, section: str = "moving", parts: int = 1
    ) -> None:
        slots = self.schema.frozen if section == "frozen" else self.schema.moving
        total = self.schema.section_bytes(slots)
        data = bytes(total) if moving is None else moving
        size = -(-total // parts)
        for offset in range(0, total, size):
            part = data[offset : offset + size]
            self.say(Parameters(self.epoch, iteration, section, offset, total), part)

    def assign(
        self, iteration: int, ticket: int, to_the_end: bool = False, next_ticket: int | None = None
    ) -> None:
        self.say(Assign(self.epoch, iteration, ticket, next_ticket, to_the_end))

    def gradient(self) -> tuple[Commit, bytes]:
        """The next gradient: its COMMIT and its bytes."""
        flat = bytearray()
        while True:
            message = self.receive((Chunk, Commit))
            if isinstance(message, Commit):
                return message, bytes(flat)
            assert message.offset == len(flat)
            flat += self.payload

    def one_iteration(self, iteration: int, ticket: int) -> tuple[Commit, bytes]:
        """READY, parameters, ticket, gradient."""
        self.receive(Ready)
        self.parameters(iteration)
        self.assign(iteration, ticket)
        return self.gradient()

    def serve_until_commit(self, iteration: int, ticket: int) -> Commit:
        """Answer whatever the worker says, as a living aggregator would, until a gradient is whole."""
        greeted: dict[bytes, tuple[Hello, Challenge]] = {}
        while True:
            said = self.receive((Hello, Proof, Ready, Commit))
            match said:
                case Hello():
                    greeted[self.route] = self.challenge(said)
                case Proof():
                    self.say(Welcome(aggregator_proof(self.key, *greeted[self.route]), 1, iteration, False))
                case Ready():
                    self.parameters(iteration)
                    self.assign(iteration, ticket)
                case Commit():
                    return said

    def evaluate(self, iteration: int, averaged: bool = True) -> None:
        self.say(Evaluate(iteration, averaged))

    def dismiss(self, why: str = "succeeded") -> None:
        self.say(Leave(why))


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

    def run(**changes: str | None) -> WorkerProcess:
        log = tmp_path / f"interpreter-{len(started)}.log"
        environment = {**os.environ, **to_environment(launch_of()), **changes}
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

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        self._reached.set()
        assert self._opened.wait(DEADLINE), "the gate was never opened"
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
