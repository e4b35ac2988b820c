"""The place of a worker in its job: joined, joined again after a loss, and seen to be alive.

The working thread sends and reads by itself. A small thread says that the process lives while the working
thread computes; its `progress` stands still when the working thread does.
"""

import contextlib
import hashlib
import logging
import threading
import time
from collections.abc import Callable

from backupsync.errors import Refused as RefusedError
from backupsync.exits import Exit
from backupsync.launch import WorkerLaunch
from backupsync.spec import JobSpec
from backupsync.wire.frames import Buffer
from backupsync.wire.messages import (
    FromWorker,
    Goodbye,
    Heartbeat,
    Initial,
    InitialDone,
    Ready,
    RefusalCode,
    Refused,
    Timing,
)
from backupsync.wire.schema import Schema, chunks
from backupsync_worker.connection.inbox import Inbox
from backupsync_worker.connection.join import Joiner
from backupsync_worker.connection.link import ConnectionLost, Link
from backupsync_worker.metrics import WorkerMetrics
from backupsync_worker.signals import Stop

_GOODBYE_SECONDS = 1.0

_log = logging.getLogger(__name__)


class StartAgain(Exception):  # noqa: N818 -- a request, not a fault
    """Only a fresh process can go on; it ends with Exit.RESTART."""


class Model:
    """What joining needs of a model: its tensors, their first values, and the length of the data."""

    def __init__(
        self,
        schema: Schema,
        initial: Callable[[], tuple[memoryview, memoryview]],
        batches_per_epoch: Callable[[], int | None],
    ) -> None:
        self.schema = schema
        self.initial = initial
        self.batches_per_epoch = batches_per_epoch
        self.moving_bytes = schema.section_bytes(schema.moving)
        self.frozen_bytes = schema.section_bytes(schema.frozen)


class Membership:
    """One worker, over as many connections as it takes."""

    def __init__(self, launch: WorkerLaunch, spec: JobSpec, metrics: WorkerMetrics, stop: Stop) -> None:
        self._wire = spec.aggregation.wire
        self._metrics = metrics
        self._stop = stop
        self._joiner = Joiner(launch, spec)
        self._link: Link | None = None
        self._model: Model | None = None
        self._trained = False
        self._silence = 0.0
        self._asked = False
        self._beaten = 0.0
        self._readied = 0.0
        self._phase = "starting"
        self.progress = 0
        """Grows at every boundary the working thread passes."""
        self.connections = 0
        """Joins so far: what belongs to an earlier one is void."""
        self._counted = (0, 0)
        self.inbox = Inbox(0, 0, 0)
        self._ended = threading.Event()
        self._pulse = threading.Thread(target=self._beat_on, name="heartbeat", daemon=True)
        self._pulse.start()

    @property
    def joined(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._link is not None

    def enter(self, phase: str) -> None:
        """Say what the working thread does now."""
        if phase != self._phase:
            self._phase = phase
            self._metrics.phase(phase)
        self.progress += 1

    def join(self, model: Model) -> None:
        """Join, however long it takes. Raises errors.Refused, StartAgain, signals.Stopped."""
        self._model = model
        while self._link is None:
            joined = self._joiner.join(
                model.schema, max(model.moving_bytes, model.frozen_bytes), self._stop.check
            )
            self.inbox = Inbox(joined.welcome.epoch, model.moving_bytes, model.frozen_bytes)
            self._link = joined.link
            self._counted = (0, 0)
            self.connections += 1
            self._readied = self._silence = 0.0
            self._asked = False
            self._metrics.joined()
            _log.info("joined, epoch %d, iteration %d", joined.welcome.epoch, joined.welcome.iteration)
            try:
                if joined.welcome.send_initial:
                    self._send_initial(model)
            except ConnectionLost as error:
                self.lose(error)

    def join_again(self) -> None:
        """Join with the same model. Raises as `join`."""
        assert self._model is not None, "join() comes first"
        self.join(self._model)

    def lose(self, why: ConnectionLost) -> None:
        """Give the connection up."""
        if self._link is not None:
            _log.warning("lost the aggregator: %s", why)
            self._count_bytes(self._link)
            self._link.close()
            self._link = None

    def check_stop(self) -> None:
        """Raise signals.Stopped if this process has been asked to end."""
        self._stop.check()

    def computed(self, timing: Timing) -> None:
        """Count a gradient that is whole."""
        self._metrics.computed(timing)
        self._count_bytes(self._connected())

    def waited(self, iteration: int, seconds: float) -> None:
        """Count the wait for the parameters of `iteration`."""
        self._metrics.assigned(iteration, seconds)

    def send(self, message: FromWorker, payload: Buffer | None = None) -> None:
        """Send `message`. Raises ConnectionLost."""
        self._connected().send(message, payload)

    def ready(self, *, at_once: bool = False) -> None:
        """Say READY, again when a heartbeat interval has passed. Raises ConnectionLost."""
        now = time.monotonic()
        if at_once or now - self._readied >= self._wire.heartbeat_seconds:
            assert self._model is not None
            self._trained = self._trained or self.inbox.holds >= 0
            self.send(Ready(self.inbox.holds, self._model.batches_per_epoch()))
            self._readied = now

    def pump(self) -> None:
        """Take whatever has come. Raises ConnectionLost, errors.Refused."""
        try:
            self._drain(self._connected())
        except ConnectionLost:
            # LEAVE may be the last word before the connection ends: then there is nothing to regret.
            if self.inbox.leave is None:
                raise
        for verdict in self.inbox.verdicts:
            self._metrics.judged(verdict.outcome)
        self.inbox.verdicts.clear()
        self.progress += 1
        self._beat()
        if self.inbox.refused is not None:
            self._answer_refusal(self.inbox.refused)

    def _drain(self, link: Link) -> None:
        while (said := link.receive()) is not None:
            self._silence, self._asked = 0.0, False
            self.inbox.take(*said)

    def wait(self, seconds: float) -> None:
        """Wait for the aggregator's next word, at most `seconds`. Raises ConnectionLost."""
        began = time.monotonic()
        self._connected().wait(seconds)
        # A process that was stopped meanwhile has not waited: only time it could have heard counts.
        self._silence += min(time.monotonic() - began, 2 * seconds)
        if self._silence > 2 * self._wire.timeout_seconds:
            raise ConnectionLost(f"not a word for {self._silence:.3g} s")
        if self._silence > self._wire.timeout_seconds and not self._asked:
            # It may have nothing to say, or hang while its I/O thread still answers ZMTP heartbeats.
            assert self._model is not None
            self._asked = True
            self.send(self._joiner.hello(self._model.schema))

    def close(self, reason: str) -> None:
        """Say goodbye, if anybody listens, and let go of everything."""
        self._ended.set()
        self._pulse.join()
        if self._link is not None:
            with contextlib.suppress(ConnectionLost):
                self._link.send(Goodbye(reason[:512]))
            self._count_bytes(self._link)
            self._link.close(_GOODBYE_SECONDS)
            self._link = None
        self._joiner.close()

    def _connected(self) -> Link:
        if self._link is None:
            raise ConnectionLost("not joined")
        return self._link

    def _send_initial(self, model: Model) -> None:
        if self._trained:
            raise StartAgain(
                "the aggregator starts from nothing, but the parameters here are no longer the first ones"
            )
        moving, frozen = model.initial()
        for section, data in (("moving", moving), ("frozen", frozen)):
            for offset, size in chunks(len(data), self._wire.chunk_bytes):
                self.send(Initial(section, offset), data[offset : offset + size])  # type: ignore[arg-type]
        digest = hashlib.sha256(moving)
        digest.update(frozen)
        self.send(InitialDone(digest.digest(), model.batches_per_epoch()))

    def _answer_refusal(self, refused: Refused) -> None:
        self.inbox.refused = None
        if refused.code == RefusalCode.NOT_JOINED:
            raise ConnectionLost("the aggregator does not know this connection")
        if refused.code == RefusalCode.MALFORMED:
            # One message, not this worker: the aggregator counts it and hands out a fresh ticket.
            _log.warning("the aggregator could not use a message: %s", refused.detail)
            return
        raise RefusedError(refused.code, refused.detail)

    def _beat_on(self) -> None:
        while not self._ended.wait(self._wire.heartbeat_seconds / 2):
            self._beat()

    def _beat(self) -> None:
        """Say that this process lives, when it is time. Called from both threads."""
        link, now = self._link, time.monotonic()
        if link is None or now - self._beaten < self._wire.heartbeat_seconds:
            return
        if link.try_send(Heartbeat(self.progress, self._phase)):
            self._beaten = now

    def _count_bytes(self, link: Link) -> None:
        sent, received = self._counted
        self._metrics.sent(link.sent_bytes - sent)
        self._metrics.received(link.received_bytes - received)
        self._counted = (link.sent_bytes, link.received_bytes)


def exit_code(refused: RefusedError) -> Exit:
    """Return the exit code of a refusal: whether another try helps, and whose turn it is."""
    match refused.code:
        case RefusalCode.NOT_A_MEMBER | RefusalCode.DUPLICATE:
            return Exit.FENCED
        case RefusalCode.WRONG_KEY | RefusalCode.WRONG_JOB | RefusalCode.PROTOCOL:
            return Exit.CONFIGURATION
        case RefusalCode.SCHEMA | RefusalCode.UNSUPPORTED:
            return Exit.BAD_INPUT
    return Exit.CRASHED
