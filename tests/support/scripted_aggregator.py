"""A scripted aggregator: a ROUTER that says what a test tells it to, and hears what the worker says."""

import secrets
import time
from typing import Any

import pytest
import zmq
from zmq.utils import z85

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

DEADLINE = 30.0


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
