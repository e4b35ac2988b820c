"""Reading examples, here or in a loader process: the same numbers come out wherever a reader runs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple

from backupsync_worker.tensors.seeding import seed_everything

BLOCK: Final = 8
"""Examples that are read together: the unit of work of a loader process, and of seeding."""


class Task(NamedTuple):
    """Read these examples for this block of this ticket."""

    ticket: int
    block: int
    indices: tuple[int, ...]


@dataclass
class MapReader:
    """Reads one block of a map-style data set; runs here or in a loader process, to the same numbers."""

    dataset: Any
    seed: int

    def __call__(self, task: Task) -> list[Any]:
        """Return the examples of one block."""
        seed_everything(self.seed, "data", task.ticket, task.block)
        at_once = getattr(self.dataset, "__getitems__", None)
        if at_once is not None:
            return list(at_once(list(task.indices)))
        return [self.dataset[index] for index in task.indices]


class StreamReader:
    """Reads the mini-batches of a stream that are this worker's; an empty one means its end, for good."""

    def __init__(self, dataset: Iterable[Any], seed: int, batch_size: int, rank: int, total: int) -> None:
        shard = getattr(dataset, "shard", None)
        self._stream = dataset if shard is None else shard(rank, total)
        self._seed, self._batch_size, self._rank = seed, batch_size, rank
        self._skip = 0 if shard is not None else total - 1
        self._lead = 0 if shard is not None else rank
        self._iterator: Iterator[Any] | None = None

    def __call__(self, number: int) -> list[Any]:
        """Return the examples of this worker's mini-batch `number`; to be called with 0, 1, 2 and so on."""
        seed_everything(self._seed, "stream", self._rank, number)
        skipped = self._skip if self._iterator is not None else self._lead
        if self._iterator is None:
            self._iterator = iter(self._stream)
        for _ in islice(self._iterator, skipped * self._batch_size):
            pass
        return list(islice(self._iterator, self._batch_size))
