"""Tickets: which mini-batch is handed out next, and which come back.

A ticket names a mini-batch and every random number of its computation. Tickets rise strictly, and no ticket
is in two hands at once. Those given back are handed out first, so that the data is covered.
"""

import heapq
from collections.abc import Iterable
from hashlib import blake2b

from backupsync.spec import AggregationSpec, DroppedBatches

_TO_THE_END_OF = 4


def runs_to_the_end(seed: int, ticket: int) -> bool:
    """Whether this ticket is one of the pre-drawn one in four that are computed to the end even when late.

    A function of (seed, ticket) alone, so that it is independent of the outcome and the compute times of
    these tickets are an uncensored sample.
    """
    return blake2b(b"to-the-end:%d:%d" % (seed, ticket), digest_size=1).digest()[0] % _TO_THE_END_OF == 0


class Tickets:
    """The one source of tickets."""

    def __init__(self, first: int, returned: Iterable[int], spec: AggregationSpec) -> None:
        self.next = first
        """The first ticket never handed out."""
        self.limit: int | None = None
        """Tickets from here on do not exist: the data, times the epochs, is at its end."""
        self._returned = list(returned)
        heapq.heapify(self._returned)
        self._requeue = spec.dropped_batches is DroppedBatches.REQUEUE
        self._max_requeues = spec.max_requeues
        self._comebacks: dict[int, int] = {}
        self.scarce = False
        """Once a ticket was asked for in vain, none is reserved ahead any more."""

    @property
    def returned(self) -> tuple[int, ...]:
        """Tickets given back and not handed out since, rising."""
        return tuple(sorted(self._returned))

    @property
    def available(self) -> bool:
        """Whether there is a ticket to hand out."""
        return bool(self._returned) or self.limit is None or self.next < self.limit

    @property
    def requeues(self) -> bool:
        """Whether the tickets of dropped gradients come back."""
        return self._requeue

    def end_at(self, limit: int) -> None:
        """From `limit` on there are no tickets; those reserved ahead do not come back either."""
        self.limit = limit
        self._returned = [ticket for ticket in self._returned if ticket < limit]
        heapq.heapify(self._returned)

    def take(self) -> int | None:
        """Hand out a ticket, the lowest given back first; None when there is none."""
        if self._returned:
            return heapq.heappop(self._returned)
        if self.limit is not None and self.next >= self.limit:
            self.scarce = True
            return None
        self.next += 1
        return self.next - 1

    def reserve(self) -> int | None:
        """Hand out a ticket ahead of its time, for prefetching; None once tickets are scarce."""
        return None if self.scarce or not self.available else self.take()

    def give_back(self, ticket: int) -> None:
        """Take back a ticket that nobody finished, to hand it out again."""
        if self.limit is None or ticket < self.limit:
            heapq.heappush(self._returned, ticket)

    def unfinished(self, ticket: int) -> None:
        """Take back the ticket of a worker that left, unless it already cost `maxRequeues` workers.

        The bound keeps a mini-batch that kills its worker from killing every one of them.
        """
        self._come_back(ticket)

    def dropped(self, ticket: int) -> None:
        """A gradient was dropped: with Requeue its ticket comes back, at most `maxRequeues` times."""
        if self._requeue:
            self._come_back(ticket)
        else:
            self.done(ticket)

    def done(self, ticket: int) -> None:
        """The ticket will never come back."""
        self._comebacks.pop(ticket, None)

    def _come_back(self, ticket: int) -> None:
        times = self._comebacks.get(ticket, 0)
        if times >= self._max_requeues:
            self.done(ticket)
            return
        self._comebacks[ticket] = times + 1
        self.give_back(ticket)
