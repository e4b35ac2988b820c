"""The work queue: keys that need a look, each at most once, never the same one twice at the same time.

Events, timers and failures only add keys; what is to be done about one is found out when it is its turn. A
key added while it is worked on comes again afterwards. Failures pause a key exponentially, with jitter.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Final, NamedTuple

FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 60.0


class Key(NamedTuple):
    """A job, by namespace and name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Queue:
    """A deduplicating queue of keys with delays. For one event loop; not for threads."""

    def __init__(
        self,
        *,
        first_pause: float = FIRST_PAUSE_SECONDS,
        longest_pause: float = LONGEST_PAUSE_SECONDS,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._first, self._longest, self._draw = first_pause, longest_pause, draw
        self._ready: dict[Key, float] = {}
        """Keys whose turn it is, in order, and since when (loop time)."""
        self._later: dict[Key, asyncio.TimerHandle] = {}
        self._at_work: dict[Key, float] = {}
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._wakes: asyncio.Event = asyncio.Event()

    def add(self, key: Key) -> None:
        """Have `key` looked at as soon as a worker is free."""
        self._cancel(key)
        if key in self._at_work:
            self._again.add(key)
        elif key not in self._ready:
            self._ready[key] = _now()
            self._wakes.set()

    def add_later(self, key: Key, seconds: float) -> None:
        """Have `key` looked at in `seconds`, or earlier if that was asked for already."""
        if seconds <= 0:
            self.add(key)
            return
        if key in self._ready or key in self._again:
            return
        due = _now() + seconds
        pending = self._later.get(key)
        if pending is not None and pending.when() <= due:
            return
        self._cancel(key)
        self._later[key] = asyncio.get_running_loop().call_at(due, self.add, key)

    async def take(self) -> Key:
        """Wait for a key whose turn it is; the caller must hand it back by `done` or `failed`."""
        while not self._ready:
            self._wakes.clear()
            await self._wakes.wait()
        key = next(iter(self._ready))
        del self._ready[key]
        self._at_work[key] = _now()
        return key

    def done(self, key: Key, again_after: float | None = None) -> None:
        """`key` was looked at; look again after `again_after` seconds, if given."""
        self._failures.pop(key, None)
        self._hand_back(key, again_after)

    def failed(self, key: Key) -> float:
        """Looking at `key` failed; return the pause in seconds after which it comes again."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        pause: float = min(self._longest, self._first * 2.0 ** min(count - 1, 32))
        pause *= 0.75 + 0.5 * self._draw()
        if key in self._again:
            # Something happened meanwhile that may help (an edit): soon, but a storm of events must not spin.
            self._again.discard(key)
            pause = min(pause, self._first)
        self._hand_back(key, pause)
        return pause

    def forget(self, key: Key) -> None:
        """Forget the failures and timers of a key that is no more."""
        self._failures.pop(key, None)
        self._cancel(key)

    def close(self) -> None:
        """Cancel every timer."""
        for key in list(self._later):
            self._cancel(key)

    @property
    def depth(self) -> int:
        """Keys whose turn it is."""
        return len(self._ready)

    @property
    def at_work(self) -> int:
        """Keys being looked at."""
        return len(self._at_work)

    @property
    def oldest_seconds(self) -> float:
        """How long the longest waiting key has waited, or the longest look has taken."""
        started = [*self._ready.values(), *self._at_work.values()]
        return _now() - min(started) if started else 0.0

    def _hand_back(self, key: Key, after: float | None) -> None:
        del self._at_work[key]
        if key in self._again:
            self._again.discard(key)
            self.add(key)
        elif after is not None:
            self.add_later(key, after)

    def _cancel(self, key: Key) -> None:
        timer = self._later.pop(key, None)
        if timer is not None:
            timer.cancel()


def _now() -> float:
    return asyncio.get_running_loop().time()
