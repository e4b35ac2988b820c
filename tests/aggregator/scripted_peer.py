"""A worker that speaks the wire's protocol, but does only what the test says."""

import hashlib
import secrets
from typing import Any

import numpy as np
import zmq
from running_aggregator import CHUNK, KEY, SIZE, TARGET, UID, RunningAggregator, entries
from zmq.utils import z85

from backupsync.wire import messages as wire
from backupsync.wire.auth import aggregator_proof, derive_key, worker_proof
from backupsync.wire.frames import decode_from_aggregator, encode
from backupsync.wire.schema import Schema, chunks


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
