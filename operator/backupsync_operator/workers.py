"""The workers: each takes a key, has it looked at, and hands it back; whatever goes wrong costs a pause."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from backupsync_operator.api import ApiError
from backupsync_operator.metrics import Metrics
from backupsync_operator.queue import Key, Queue

LOOK_SECONDS: Final = 300.0
"""Longest time for one look: every request in it has a deadline of its own."""

Look = Callable[[Key], Awaitable[float | None]]
"""Looks at a job; returns after how many seconds to look again, if at all."""

_log = logging.getLogger(__name__)


class Workers:
    """So many looks at the same time, never two at one job."""

    def __init__(self, queue: Queue, look: Look, metrics: Metrics, count: int) -> None:
        self._queue, self._look, self._metrics, self._count = queue, look, metrics, count
        self._busy: set[Key] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._draining = False

    async def run(self) -> None:
        """Work until drained or cancelled. Raises what a worker died of."""
        self._tasks = [
            asyncio.create_task(self._work(), name=f"worker {number}") for number in range(self._count)
        ]
        try:
            await asyncio.gather(*self._tasks)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def drain(self, seconds: float) -> None:
        """Take no key any more; wait for the looks under way, at most so long."""
        self._draining = True
        try:
            async with asyncio.timeout(seconds):
                while self._busy:  # noqa: ASYNC110 -- at the end of the process, at most once
                    await asyncio.sleep(0.02)
        except TimeoutError:
            _log.warning("%s looks were not over in time", len(self._busy))

    @property
    def problem(self) -> str:
        """Why no work gets done; empty while it does."""
        dead = sum(task.done() for task in self._tasks)
        return f"{dead} of {self._count} workers have died" if dead else ""

    async def _work(self) -> None:
        while not self._draining:
            key = await self._queue.take()
            if key in self._busy:
                self._metrics.overlaps.inc()
            self._busy.add(key)
            try:
                await self._one(key)
            finally:
                self._busy.discard(key)

    async def _one(self, key: Key) -> None:
        loop = asyncio.get_running_loop()
        began, outcome = loop.time(), "bug"
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                again = await self._look(key)
        except ApiError as error:
            outcome, pause = "error", self._queue.failed(key)
            _log.warning("job %s: %s; again in %.1f s", key, error, pause)
        except Exception:
            pause = self._queue.failed(key)
            _log.exception("job %s: a bug; again in %.1f s", key, pause)
        else:
            outcome = "ok"
            self._queue.done(key, again)
        finally:
            self._metrics.reconciles.labels(outcome).observe(loop.time() - began)
