"""The line to the aggregators: their status up, the desired state down, over HTTP with deadlines.

One task per running aggregator, outside the work queue, so that a slow answer holds up nobody. An answer
wakes its job only when it says something to decide on; mere progress never does.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import aiohttp
import msgspec

from backupsync.control import AggregatorStatus, Desired
from backupsync.kube.names import HTTP_PORT
from backupsync_operator.queue import Key

POLL_SECONDS: Final = 1.0
REQUEST_SECONDS: Final = 3.0
SILENT_AFTER: Final = 3
"""Answers missed in a row before the aggregator counts as silent."""
LARGEST_ANSWER: Final = 8 * 1024 * 1024

_log = logging.getLogger(__name__)
_decoder = msgspec.json.Decoder(AggregatorStatus)


class Target(NamedTuple):
    """An aggregator in office."""

    uid: str
    """uid of the job."""
    epoch: int
    host: str
    token: str


class Pollers:
    """One poller per job with a running aggregator."""

    def __init__(
        self, wake: Callable[[Key], None], port: int = HTTP_PORT, *, poll_seconds: float = POLL_SECONDS
    ) -> None:
        self._wake, self._port, self._seconds = wake, port, poll_seconds
        self._pollers: dict[Key, _Poller] = {}
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    def point(self, key: Key, target: Target) -> None:
        """Poll this aggregator from now on, and no other of the job."""
        poller = self._pollers.get(key)
        if self._closed or (poller is not None and poller.target == target):
            return
        self.drop(key)
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
            self._session = aiohttp.ClientSession(timeout=timeout, trust_env=False)
        self._pollers[key] = _Poller(
            self._session, target, self._port, lambda: self._wake(key), self._seconds
        )

    def drop(self, key: Key) -> None:
        """Poll no aggregator of this job, and forget what it said."""
        poller = self._pollers.pop(key, None)
        if poller is not None:
            poller.task.cancel()

    def latest(self, key: Key) -> AggregatorStatus | None:
        """Newest answer; None before the first, and while the aggregator is silent."""
        poller = self._pollers.get(key)
        return None if poller is None else poller.latest

    def tell(self, key: Key, desired: Desired) -> None:
        """Send this desired state, as soon and as often as it takes."""
        poller = self._pollers.get(key)
        if poller is not None:
            poller.tell(desired)

    async def close(self) -> None:
        """Stop polling, for good."""
        self._closed = True
        tasks = [poller.task for poller in self._pollers.values()]
        for key in list(self._pollers):
            self.drop(key)
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()


class _Poller:
    """The line to one aggregator."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        target: Target,
        port: int,
        wake: Callable[[], None],
        seconds: float,
    ) -> None:
        self.target = target
        self.latest: AggregatorStatus | None = None
        self._session, self._wake, self._seconds = session, wake, seconds
        host = f"[{target.host}]" if ":" in target.host else target.host
        self._root = f"http://{host}:{port}"
        self._desired: Desired | None = None
        self._told: Desired | None = None
        self._missed = 0
        self._hurry = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name=f"poll {target.uid} epoch {target.epoch}")

    def tell(self, desired: Desired) -> None:
        if desired != self._desired:
            self._desired = desired
            self._hurry.set()

    async def _run(self) -> None:
        while True:
            self._hurry.clear()
            try:
                self._take(await self._exchange())
            except Exception:  # whatever an aggregator answers, its poller lives
                _log.exception("aggregator %s: its answer was not understood", self._root)
                self._take(None)
            # Jittered, so that a thousand aggregators are not asked in the same moment.
            pause = self._seconds * (0.9 + 0.2 * random.random())
            # Not wait_for: until Python 3.12 it may swallow the cancellation that is to end this task.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._hurry.wait()

    async def _exchange(self) -> AggregatorStatus | None:
        """Say what is desired unless it was said, and ask how it is; None where no good answer comes."""
        try:
            desired = self._desired
            if desired is not None and desired != self._told and await self._control(desired):
                self._told = desired
            async with self._session.get(f"{self._root}/status", allow_redirects=False) as response:
                if response.status != 200:
                    return None
                answer = _decoder.decode(await _read(response))
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.MsgspecError) as error:
            _log.debug("aggregator %s: %s", self._root, error or type(error).__name__)
            return None
        # The address of a pod that is gone may be somebody else's by now.
        if (answer.uid, answer.epoch) != (self.target.uid, self.target.epoch):
            return None
        if desired is not None and answer.applied < desired.order:
            self._told = None
        return answer

    async def _control(self, desired: Desired) -> bool:
        headers = {"Authorization": f"Bearer {self.target.token}", "Content-Type": "application/json"}
        body = msgspec.json.encode(desired)
        async with self._session.post(
            f"{self._root}/control", data=body, headers=headers, allow_redirects=False
        ) as response:
            if response.status not in (200, 409):  # 409: a later one is in force, as the status will say
                said = (await _read(response))[:200].decode(errors="replace")
                _log.warning("aggregator %s: POST /control: %s: %s", self._root, response.status, said)
                return False
            return True

    def _take(self, answer: AggregatorStatus | None) -> None:
        if answer is None:
            self._missed += 1
            if self._missed < SILENT_AFTER:
                return
        else:
            self._missed = 0
        before, self.latest = self.latest, answer
        if substance(before) != substance(answer):
            self._wake()


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Read a body of bounded size. Raises aiohttp.ClientPayloadError beyond it."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(65536):
        body += chunk
        if len(body) > LARGEST_ANSWER:
            raise aiohttp.ClientPayloadError(f"more than {LARGEST_ANSWER} bytes")
    return bytes(body)


def substance(status: AggregatorStatus | None) -> tuple[Any, ...] | None:
    """What of an answer there is to decide on; equal for two that differ in progress alone."""
    if status is None:
        return None
    members = tuple((m.rank, m.attempt, m.start, m.state, m.commits > 0) for m in status.members)
    return (
        status.epoch,
        status.phase,
        status.reason,
        status.applied,
        (status.required, status.backups),
        members,
        tuple((r.peer, r.code) for r in status.refusals),
        status.evaluation_problem,
        status.iteration > 0,
        status.checkpoint_iteration is not None,
    )
