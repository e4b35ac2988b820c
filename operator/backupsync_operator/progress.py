"""The budget of progress writes: at most one per job and interval, and so many a second over all jobs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from backupsync_operator.api import ApiError
from backupsync_operator.queue import Key

TICK_SECONDS: Final = 0.5

_log = logging.getLogger(__name__)


class Budget:
    """A token bucket: `rate` tokens a second, at most one second's worth (or one) saved up."""

    def __init__(self, rate: float, now: float) -> None:
        self._rate, self._most = rate, max(1.0, rate)
        self._tokens, self._at = self._most, now

    def take(self, now: float) -> bool:
        """Take a token, if there is one at `now` (seconds of a monotonic clock)."""
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class Progress:
    """Has the progress of running jobs written, the longest unwritten first."""

    def __init__(
        self,
        write: Callable[[Key], Awaitable[bool]],
        *,
        rate: float,
        interval: float,
        tick_seconds: float = TICK_SECONDS,
    ) -> None:
        self._write, self._rate, self._interval, self._tick = write, rate, interval, tick_seconds
        self._due: dict[Key, float] = {}

    def follow(self, key: Key, now: float) -> None:
        """Write this job's progress from now on, first after one interval."""
        self._due.setdefault(key, now + self._interval)

    def written(self, key: Key, now: float) -> None:
        """The job's status was written for another reason, progress and all."""
        if key in self._due:
            self._due[key] = now + self._interval

    def drop(self, key: Key) -> None:
        """Write no more progress of this job."""
        self._due.pop(key, None)

    async def run(self) -> None:
        """Write until cancelled."""
        loop = asyncio.get_running_loop()
        budget = Budget(self._rate, loop.time())
        while True:
            await asyncio.sleep(self._tick)
            for key in sorted(self._due, key=lambda k: self._due.get(k, 0.0)):
                now = loop.time()
                if self._due.get(key, now + 1) > now:
                    continue
                if not budget.take(now):
                    break
                await self._one(key, now)

    async def _one(self, key: Key, now: float) -> None:
        self._due[key] = now + self._interval
        try:
            await self._write(key)
        except ApiError as error:
            # The next one is as good: progress is not worth a retry.
            _log.info("job %s: its progress was not written: %s", key, error)
