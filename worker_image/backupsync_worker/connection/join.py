"""Joining: HELLO, challenge, proof, welcome. Both sides prove that they hold the job's key.

Every attempt has a socket of its own. An attempt that fails is repeated for as long as it takes, with growing
pauses: the aggregator may start later than its workers, or be replaced. Only a refusal ends it.
"""

import logging
import random
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

import zmq
from zmq.utils import z85

from backupsync.errors import Refused as RefusedError
from backupsync.launch import WorkerLaunch
from backupsync.spec import JobSpec
from backupsync.wire.auth import aggregator_proof, derive_key, matches, worker_proof
from backupsync.wire.messages import (
    PROTOCOL,
    Challenge,
    FromAggregator,
    Hello,
    Proof,
    RefusalCode,
    Refused,
    Welcome,
)
from backupsync.wire.schema import Schema
from backupsync_worker.connection.link import Address, ConnectionLost, Link, resolve

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
_SAY_EVERY = 10.0

_log = logging.getLogger(__name__)


class Joined(NamedTuple):
    """A connection on which this worker is a member."""

    link: Link
    welcome: Welcome


class Joiner:
    """Joins one job, as often as needed; remembers the highest epoch seen."""

    def __init__(self, launch: WorkerLaunch, spec: JobSpec) -> None:
        self._launch = launch
        self._wire = spec.aggregation.wire
        self._key = launch.key()
        self._server_key = _curve_key(self._key) if spec.security.encryption == "Curve" else None
        self._incarnation = secrets.token_bytes(32)
        # Not the `random` module's own state: that one belongs to the program and its ticket.
        self._jitter = random.Random(self._incarnation)
        self._turn = 0
        self.epoch = 0
        """Highest epoch that an aggregator has proved: a lower one is a ghost."""
        self._member = False
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    def close(self) -> None:
        """Let go of ZeroMQ; every link must be closed before."""
        self._context.term()

    def join(self, schema: Schema, max_payload: int, check: Callable[[], None]) -> Joined:
        """Join, however long it takes; `check` is called often and may raise to give up.

        Raises errors.Refused when the aggregator will not have this worker.
        """
        began = said = time.monotonic()
        pause = _FIRST_PAUSE
        while True:
            try:
                return self._attempt(schema, max_payload, check)
            except ConnectionLost as error:
                why = str(error)
            except RefusedError as error:
                if not self._may_change(error, time.monotonic() - began):
                    raise
                why = str(error)
            if time.monotonic() - said > _SAY_EVERY:
                said = time.monotonic()
                waited = said - began
                _log.warning(
                    "waiting for the aggregator at %s for %.0f s: %s", self._launch.endpoint, waited, why
                )
            self._pause(pause * self._jitter.uniform(0.5, 1.0), check)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def hello(self, schema: Schema) -> Hello:
        """Return the first word of a connection; on one that is old, it asks whether anybody is there."""
        launch = self._launch
        return Hello(
            job=launch.uid,
            rank=launch.rank,
            attempt=launch.attempt,
            start=launch.start,
            incarnation=self._incarnation,
            protocol=PROTOCOL,
            schema_hash=schema.hash,
            nonce=secrets.token_bytes(32),
        )

    def _may_change(self, error: RefusedError, waited: float) -> bool:
        """Say whether trying again may help.

        A worker can be quicker than the word about it that the engine sends to the aggregator.
        """
        if error.code == RefusalCode.NOT_JOINED:
            return True
        early = not self._member and waited < self._wire.timeout_seconds
        return error.code == RefusalCode.NOT_A_MEMBER and early

    def _attempt(self, schema: Schema, max_payload: int, check: Callable[[], None]) -> Joined:
        self._turn += 1
        endpoint = resolve(self._launch.endpoint, self._turn)
        link = Link(self._context, Address(endpoint, self._server_key), self._wire, max_payload)
        try:
            welcome = self._handshake(link, schema, check)
        except BaseException:
            link.close()
            raise
        self.epoch = welcome.epoch
        self._member = True
        return Joined(link, welcome)

    def _handshake(self, link: Link, schema: Schema, check: Callable[[], None]) -> Welcome:
        hello = self.hello(schema)
        link.send(hello)
        challenge = self._answer(link, check)
        if not isinstance(challenge, Challenge):
            raise ConnectionLost(f"the aggregator answered HELLO with {type(challenge).__name__}")
        if challenge.epoch < self.epoch:
            raise ConnectionLost(f"aggregator of epoch {challenge.epoch}, but {self.epoch} has been seen")
        link.send(Proof(worker_proof(self._key, hello, challenge), schema.entries))
        welcome = self._answer(link, check)
        if not isinstance(welcome, Welcome):
            raise ConnectionLost(f"the aggregator answered PROOF with {type(welcome).__name__}")
        if not matches(aggregator_proof(self._key, hello, challenge), welcome.mac):
            raise ConnectionLost("the aggregator could not prove that it holds the job's key")
        if welcome.epoch != challenge.epoch:
            raise ConnectionLost(f"the aggregator proved epoch {challenge.epoch}, now says {welcome.epoch}")
        return welcome

    def _answer(self, link: Link, check: Callable[[], None]) -> FromAggregator:
        """Wait for the next word. Raises errors.Refused, or ConnectionLost when there is none in time."""
        deadline = time.monotonic() + self._wire.timeout_seconds / 2
        while (said := link.receive()) is None:
            check()
            left = deadline - time.monotonic()
            if left <= 0:
                raise ConnectionLost("the aggregator does not answer")
            link.wait(left)
        if isinstance(said[0], Refused):
            raise RefusedError(said[0].code, said[0].detail)
        return said[0]

    def _pause(self, seconds: float, check: Callable[[], None]) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            check()
            time.sleep(min(left, 0.1))


def _curve_key(key: bytes) -> bytes:
    """Return the aggregator's CURVE public key (z85), which whoever holds the job's key can derive."""
    public: bytes = zmq.curve_public(z85.encode(derive_key(key, "curve")))
    return public
