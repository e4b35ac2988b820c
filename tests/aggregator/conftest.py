"""An aggregator that runs in a thread (or a process), and peers that speak its protocol by script."""

import contextlib
import hashlib
import json
import secrets
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
import zmq
from zmq.utils import z85

from backupsync.control import AggregatorStatus, Desired, DesiredMember
from backupsync.launch import AggregatorLaunch, control_token
from backupsync.spec import BackupSyncJob, WireSpec
from backupsync.wire import messages as wire
from backupsync.wire.auth import aggregator_proof, derive_key, worker_proof
from backupsync.wire.frames import decode_from_aggregator, encode
from backupsync.wire.schema import Schema, chunks
from backupsync_aggregator.main import main

torch.set_num_threads(1)

DEADLINE = 60.0
KEY = bytes(range(32))
UID = "uid-of-the-job"
CHUNK = 4096
SIZE = 3000
"""Elements of the scripted model's one trainable tensor: 12000 bytes, three chunks."""
TARGET = np.linspace(-1.0, 1.0, SIZE, dtype=np.float32)


class DiedError(AssertionError):
    """The aggregator ended while something was waited for."""


def entries(size: int = SIZE, *, buffers: bool = False, frozen: bool = False) -> tuple[wire.TensorEntry, ...]:
    model = [wire.TensorEntry("w", "float32", (size,), "trainable")]
    if frozen:
        model.append(wire.TensorEntry("fixed", "float32", (8,), "frozen"))
    if buffers:
        model.append(wire.TensorEntry("mean", "float32", (4,), "buffer"))
        model.append(wire.TensorEntry("seen", "int64", (), "buffer"))
    return tuple(model)


def manifest(**changes: Any) -> dict[str, Any]:
    """Return a whole manifest; `changes` go into aggregation, training, checkpoint, security by name."""
    aggregation = {
        "workers": 2,
        "backupWorkers": 1,
        "wire": {"chunkBytes": CHUNK, "heartbeatSeconds": 1, "timeoutSeconds": 10},
    }
    training = {"iterations": 3, "batchSize": 4, "optimizer": {"name": "SGD", "lr": 0.5}}
    spec: dict[str, Any] = {
        "program": {"entrypoint": "module:Class"},
        "aggregation": aggregation | changes.get("aggregation", {}),
        "training": training | changes.get("training", {}),
        "checkpoint": {"everyIterations": 1} | changes.get("checkpoint", {}),
        "security": changes.get("security", {}),
    }
    document = {
        "apiVersion": "backupsync.dev/v1alpha1",
        "kind": "BackupSyncJob",
        "metadata": {"name": "quadratic"},
        "spec": spec,
    }
    return BackupSyncJob.model_validate(document).model_dump(by_alias=True, mode="json")


def desired(*members: Any, generation: int = 1, workers: int = 2, backups: int = 1, **more: Any) -> Desired:
    pairs = [
        m if isinstance(m, DesiredMember) else DesiredMember(*m) for m in members or ((0, 1), (1, 1), (2, 1))
    ]
    return Desired(
        term=0, generation=generation, members=tuple(pairs), workers=workers, backup_workers=backups, **more
    )


class RunningAggregator:
    """An aggregator in a thread of this process."""

    def __init__(self, launch: AggregatorLaunch) -> None:
        self.launch = launch
        self.code: int | None = None
        self._thread = threading.Thread(target=self._run, name="aggregator", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.code = main(self.launch)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def port(self) -> int:
        return json.loads(self.until(lambda: _text(self.launch.http_file), "the HTTP port"))["port"]

    def until(self, look: Callable[[], Any], what: str) -> Any:
        """Wait until `look()` is true and return it; fail when the aggregator ends first."""
        deadline = time.monotonic() + DEADLINE
        while not (seen := look()):
            if not self.alive:
                if seen := look():
                    return seen
                raise DiedError(f"the aggregator exited with {self.code} while waiting for {what}")
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            time.sleep(0.005)
        return seen

    def http(self, path: str, body: bytes | None = None, token: str | None = None) -> tuple[int, bytes]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=body)
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def tell(self, state: Desired, token: str | None = None) -> tuple[int, bytes]:
        return self.http("/control", msgspec.json.encode(state), token or control_token(KEY))

    def status(self) -> AggregatorStatus:
        code, body = self.http("/status")
        return msgspec.json.decode(body, type=AggregatorStatus) if code == 200 else None

    def until_status(self, look: Callable[[AggregatorStatus], Any], what: str) -> AggregatorStatus:
        def seen() -> AggregatorStatus | None:
            status = self.status()
            return status if status is not None and look(status) else None

        return self.until(seen, what)

    def metric(self, line: str) -> float:
        """Return the value of the sample that begins with `line`, 0 when there is none."""
        for text in self.http("/metrics")[1].decode().splitlines():
            if text.startswith(line + " "):
                return float(text.split()[-1])
        return 0.0

    def refused(self, code: str) -> float:
        return self.metric(f'backupsync_refused_messages_total{{code="{code}"}}')

    def exit_code(self) -> int:
        """Wait for the end and return how it ended."""
        self._thread.join(DEADLINE)
        assert not self.alive, "the aggregator did not end"
        assert self.code is not None, "the aggregator raised"
        return self.code

    def stop(self) -> int:
        """Stop it if it runs."""
        with contextlib.suppress(DiedError, OSError, HTTPException):  # it may have ended by itself
            self.tell(desired(generation=10**6, stop=True))
            while self.alive:
                self.status()  # read at the end, it lets the process go
        return self.exit_code()


def _text(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


class ScriptedPeer:
    """A worker that does only what the test says."""

    def __init__(self, aggregator: RunningAggregator, rank: int = 0, **traits: Any) -> None:
        self.aggregator = aggregator
        self.key: bytes = traits.get("key", KEY)
        self.entries = traits.get("entries", entries())
        self.schema = Schema(self.entries)
        self.hello = wire.Hello(
            job=traits.get("job", UID),
            rank=rank,
            attempt=traits.get("attempt", 1),
            start=traits.get("start", 0),
            incarnation=traits.get("incarnation", secrets.token_bytes(32)),
            protocol=traits.get("protocol", wire.PROTOCOL),
            schema_hash=self.schema.hash,
            nonce=secrets.token_bytes(32),
        )
        self.sections: dict[str, bytearray] = {}
        self.held = -1
        self.evaluates = True
        """Answer EVALUATE by itself, with `metrics`."""
        self.metrics: dict[str, float] = {}
        self.said: list[wire.FromAggregator] = []
        self.sent: list[list[bytes]] = []
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.linger = 0
        if traits.get("curve"):
            public, secret = zmq.curve_keypair()
            self.socket.curve_publickey, self.socket.curve_secretkey = public, secret
            self.socket.curve_serverkey = zmq.curve_public(z85.encode(derive_key(self.key, "curve")))
        self.socket.connect(aggregator.launch.endpoint)

    def close(self) -> None:
        self.socket.close(0)
        self._context.term()

    def send(self, message: wire.FromWorker, payload: bytes | None = None) -> None:
        self.send_raw([bytes(frame) for frame in encode(message, payload)])

    def send_raw(self, frames: list[bytes]) -> None:
        self.sent.append(frames)
        self.socket.send_multipart(frames)

    def receive(self) -> wire.FromAggregator:
        """Return the next message; parameters are put together on the way."""
        self.aggregator.until(lambda: self.socket.poll(20), f"a message to rank {self.hello.rank}")
        message, payload = decode_from_aggregator(self.socket.recv_multipart(), CHUNK)
        if isinstance(message, wire.Parameters):
            section = self.sections.setdefault(message.section, bytearray(message.total))
            section[message.offset : message.offset + len(payload)] = payload
            if message.section == "moving" and message.offset + len(payload) == message.total:
                self.held = message.iteration
        if isinstance(message, wire.Evaluate) and self.evaluates:
            self.send(wire.Evaluated(message.iteration, self.metrics))
        self.said.append(message)
        return message

    def expect(self, kind: type) -> Any:
        """Return the next message of this kind; what comes before it is kept in `said`."""
        while not isinstance(message := self.receive(), kind):
            pass
        return message

    def quiet(self) -> bool:
        return not self.socket.poll(0)

    def prove(self) -> None:
        """Say HELLO and answer the challenge."""
        self.send(self.hello)
        challenge = self.expect(wire.Challenge)
        self.expected_mac = aggregator_proof(self.key, self.hello, challenge)
        self.send(wire.Proof(worker_proof(self.key, self.hello, challenge), self.entries))

    def join(self) -> wire.Welcome:
        """Join; give the initial state when asked."""
        self.prove()
        welcome = self.expect(wire.Welcome)
        assert welcome.mac == self.expected_mac
        self.epoch = welcome.epoch
        if welcome.send_initial:
            self.give_initial()
        return welcome

    def refusal(self) -> wire.Refused:
        """Try to join and return the refusal."""
        self.send(self.hello)
        while isinstance(answer := self.receive(), wire.Challenge):
            self.send(wire.Proof(worker_proof(self.key, self.hello, answer), self.entries))
        assert isinstance(answer, wire.Refused), answer
        return answer

    def initial_sections(self) -> tuple[bytes, bytes]:
        moving = bytearray(self.schema.section_bytes(self.schema.moving))
        return bytes(moving), b"\1" * self.schema.section_bytes(self.schema.frozen)

    def give_initial(self) -> None:
        moving, frozen = self.initial_sections()
        for section, data in (("moving", moving), ("frozen", frozen)):
            for offset, size in chunks(len(data), CHUNK):
                self.send(wire.Initial(section, offset), data[offset : offset + size])
        self.send(wire.InitialDone(hashlib.sha256(moving + frozen).digest(), 100))

    def ready(self) -> None:
        self.send(wire.Ready(self.held))

    def parameters(self) -> np.ndarray:
        return np.frombuffer(bytes(self.sections["moving"]), dtype=np.float32)[:SIZE].copy()

    def gradient(self) -> bytes:
        """Gradient of half the squared distance to the target."""
        return (self.parameters() - TARGET).tobytes()

    def push(self, assign: wire.Assign, data: bytes | None = None, skip: int | None = None) -> None:
        """Send the chunks of a gradient, but for the one at `skip`."""
        data = self.gradient() if data is None else data
        for offset, size in chunks(len(data), CHUNK):
            if offset != skip:
                chunk = wire.Chunk(assign.iteration, assign.ticket, 0, offset)
                self.send(chunk, data[offset : offset + size])

    def commit(self, assign: wire.Assign, payload: bytes | None = None, **changes: Any) -> None:
        said = {"scale": 1.0, "examples": 4, "finite": True, "norm": 1.0, "loss": 0.5} | changes
        self.send(
            wire.Commit(
                epoch=assign.epoch,
                attempt=self.hello.attempt,
                iteration=assign.iteration,
                ticket=assign.ticket,
                **said,
            ),
            payload,
        )

    def assigned(self) -> wire.Assign:
        """Say READY and wait for a ticket."""
        self.ready()
        return self.expect(wire.Assign)

    def go_home(self) -> wire.Leave:
        """Say READY for the last time and wait for the word to leave."""
        self.ready()
        return self.expect(wire.Leave)

    def answer(self, assign: wire.Assign) -> wire.Verdict:
        """Compute the ticket's gradient, send all of it and return the verdict."""
        self.push(assign)
        self.commit(assign)
        return self.expect(wire.Verdict)


@pytest.fixture
def desired_state() -> Callable[..., Desired]:
    """Return the maker of desired states: members as pairs, generation, workers, backups, ..."""
    return desired


@pytest.fixture
def small_wire() -> WireSpec:
    """Return the wire of the scripted jobs."""
    return WireSpec(chunk_bytes=CHUNK)


@pytest.fixture
def model() -> Callable[..., tuple[wire.TensorEntry, ...]]:
    """Return the maker of scripted models."""
    return entries


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., RunningAggregator]]:
    """Start an aggregator; `changes` go into its manifest, `launch` into its launch."""
    running: list[RunningAggregator] = []
    (tmp_path / "key").write_text(KEY.hex())

    def begin(
        changes: dict[str, Any] | None = None, state: Desired | None = None, **launch: Any
    ) -> RunningAggregator:
        number = len(running)
        given = {
            "job": "quadratic",
            "uid": UID,
            "manifest": manifest(**(changes or {})),
            "key_file": str(tmp_path / "key"),
            "endpoint": f"ipc://{tmp_path}/socket-{number}",
            "epoch": 1,
            "desired": msgspec.to_builtins(state or desired()),
            "http_file": str(tmp_path / f"http-{number}.json"),
            "trace_file": str(tmp_path / "trace.jsonl"),
        } | launch
        aggregator = RunningAggregator(AggregatorLaunch(**given))
        running.append(aggregator)
        return aggregator

    yield begin
    for aggregator in running:
        aggregator.stop()


@pytest.fixture
def join(request: pytest.FixtureRequest) -> Iterator[Callable[..., ScriptedPeer]]:
    """Make a scripted peer; with `joined=True` it joins (and gives the initial state when asked)."""
    peers: list[ScriptedPeer] = []

    def make(
        aggregator: RunningAggregator, rank: int = 0, *, joined: bool = True, **traits: Any
    ) -> ScriptedPeer:
        peer = ScriptedPeer(aggregator, rank, **traits)
        peers.append(peer)
        if joined:
            peer.join()
        return peer

    yield make
    for peer in peers:
        peer.close()
