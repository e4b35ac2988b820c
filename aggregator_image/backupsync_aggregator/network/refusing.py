"""Refusals: the answer to the peer, the count, and a word to whoever wonders why it never joins."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from backupsync.control import Refusal
from backupsync.wire import messages as wire
from backupsync.wire.frames import FrameError
from backupsync_aggregator.network.admission import Rejected
from backupsync_aggregator.network.limits import REFUSAL_LIMIT, WARNINGS_PER_MINUTE
from backupsync_aggregator.network.peers import Peer
from backupsync_aggregator.network.post import Post
from backupsync_aggregator.telemetry.metrics import Metrics

_log = logging.getLogger(__name__)

_QUIET: Final = frozenset({wire.RefusalCode.NOT_JOINED})
"""Codes that are part of an ordinary reconnect: counted, but nobody needs to read of them."""


_MINUTE_SECONDS: Final = 60.0


class Refusals:
    """Who was turned away and why: equal ones counted, the oldest forgotten."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], Refusal] = OrderedDict()

    def add(self, peer: str, code: str, detail: str) -> bool:
        """Count one; True when it is the first of its kind."""
        key = (peer, code)
        before = self._known.pop(key, None)
        self._known[key] = Refusal(peer, code, detail, 1 + (before.count if before else 0))
        while len(self._known) > REFUSAL_LIMIT:
            self._known.popitem(last=False)
        return before is None

    def forgive(self, peer: str) -> None:
        """Forget what is past: the peer has been let in."""
        for key in [k for k in self._known if k[0] == peer]:
            del self._known[key]

    def all(self) -> tuple[Refusal, ...]:
        """Return them, oldest first."""
        return tuple(self._known.values())


class Refuser:
    """Answers what is refused, counts it, and tells people once; a stranger who floods fills no disk."""

    def __init__(
        self, post: Post, metrics: Metrics, refusals: Refusals, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._post = post
        self._metrics = metrics
        self._refusals = refusals
        self._clock = clock
        self._minute = float("-inf")
        self._said = 0

    def refuse(self, route: bytes, peer: Peer | None, error: Rejected | FrameError) -> None:
        """Refuse one message that came by `route`, from `peer` if it is known."""
        name = getattr(error, "peer", None) or (peer.name if peer else "unknown peer")
        self._metrics.refused_messages.labels(error.code.value).inc()
        self._post.refuse(route, wire.Refused(error.code, error.detail[:4096]))
        if error.code not in _QUIET and self._refusals.add(name, error.code.value, error.detail):
            self._say(name, error)

    def _say(self, name: str, error: Rejected | FrameError) -> None:
        # What a stranger calls itself is its own choice: each name is the first of its kind.
        if (now := self._clock()) - self._minute >= _MINUTE_SECONDS:
            self._minute, self._said = now, 0
        self._said += 1
        if self._said <= WARNINGS_PER_MINUTE:
            _log.warning("%s refused: %s: %s", name, error.code, error.detail)
        elif self._said == WARNINGS_PER_MINUTE + 1:
            _log.warning("more is being refused; for the rest of this minute it is only counted")

    def forgive(self, peer: Peer) -> None:
        """Forget what was refused before: the peer has been let in."""
        self._refusals.forgive(peer.name)
