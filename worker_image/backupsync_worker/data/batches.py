"""Mini-batches by ticket: which examples, in which order, with which random numbers, on which device.

Map-style data (a length and items: torch datasets, lists, tuples): the mini-batch is a pure function of
(seed, ticket), for any number of loader processes. Every pass over the data is a permutation of its own; the
last, short mini-batch of a pass is kept. Augmentation is seeded per ticket and block of `BLOCK` examples.

Streams (`IterableDataset`): a ticket names no examples, so order and coverage follow the stream, a worker
that starts again begins the stream again, and replay is refused. What is promised: no mini-batch is computed
by two workers, while their number stands. A data set with a method `shard(rank, total)` returns its own share
by it; otherwise each worker reads the stream and keeps every total-th mini-batch, from its rank on.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch.utils.data import IterableDataset, default_collate

from backupsync.errors import ProgramError
from backupsync.spec.training import LoaderSpec
from backupsync_worker.data.loader import LoaderPool
from backupsync_worker.data.readers import BLOCK, MapReader, StreamReader, Task
from backupsync_worker.tensors.device import to_device
from backupsync_worker.tensors.seeding import preserved, seed_everything, stream_seed

Collate = Callable[[list[Any]], Any]


class EndOfData(Exception):  # noqa: N818 -- a state, not a fault
    """The stream has no further mini-batch for this worker."""


@dataclass(frozen=True)
class MicroBatch:
    """Part of a mini-batch, on the device."""

    data: Any
    examples: int
    weight: float
    """Its share of the mini-batch's examples."""


class Batches:
    """Reads mini-batches of `batch_size` examples, each split into `micro_batches` as evenly as can be.

    `collate` joins a list of examples into a batch (torch's `default_collate` by default). `rank` and `total`
    matter for streams alone. Raises ProgramError for data of no known kind, or without examples.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        seed: int,
        collate: Collate | None = None,
        loader: LoaderSpec | None = None,
        device: torch.device | None = None,
        micro_batches: int = 1,
        rank: int = 0,
        total: int = 1,
    ) -> None:
        self._batch_size, self._seed, self._micro_batches = batch_size, seed, micro_batches
        self._collate = collate or default_collate
        self._loader, self._device = loader or LoaderSpec(), device or torch.device("cpu")
        self._length = None if isinstance(dataset, IterableDataset) else _length(dataset)
        self._read: Callable[[Any], list[Any]]
        if self._length is None:
            self._read = StreamReader(dataset, seed, batch_size, rank, total)
        else:
            self._read = MapReader(dataset, seed)
        # Started at once: their start takes seconds, and data that cannot be sent to them is better told now.
        self._pool = self._start_pool() if self._loader.workers else None
        self._pending: dict[int, list[Future[Any]]] = {}
        self._streamed = 0
        self._order = functools.lru_cache(maxsize=2)(self._permutation)

    @property
    def batches_per_epoch(self) -> int | None:
        """Mini-batches of one pass over the data; None for a stream."""
        return None if self._length is None else -(-self._length // self._batch_size)

    def indices(self, ticket: int) -> list[int]:
        """Return the examples of the mini-batch of `ticket`, in order (map-style data only)."""
        assert self.batches_per_epoch is not None
        epoch, number = divmod(ticket, self.batches_per_epoch)
        return self._order(epoch)[number * self._batch_size : (number + 1) * self._batch_size].tolist()

    def get(self, ticket: int, next_ticket: int | None = None) -> list[MicroBatch]:
        """Return the mini-batch of `ticket` on the device, and start to read that of `next_ticket`.

        With loader processes, a hint that comes true makes the next call return at once; a wrong one costs
        nothing but its reading. Raises EndOfData at the end of a stream, and whatever the data set raises.
        """
        with preserved():
            examples = self._examples(ticket, next_ticket)
            seed_everything(self._seed, "collate", ticket)
            batches = [self._collate(part) for part in _split(examples, self._micro_batches)]
        sizes = [len(part) for part in _split(examples, self._micro_batches)]
        return [
            MicroBatch(to_device(b, self._device, self._loader.pin_memory), n, n / len(examples))
            for b, n in zip(batches, sizes, strict=True)
        ]

    def close(self) -> None:
        """End the loader processes."""
        if self._pool is not None:
            self._pool.close()
        self._pool = None
        self._pending.clear()

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _examples(self, ticket: int, next_ticket: int | None) -> list[Any]:
        if self._length is None:
            return self._next_of_stream()
        if not self._loader.workers:
            return [e for task in self._tasks(ticket) for e in self._read(task)]
        wanted = self._pending.pop(ticket, None) or self._submit(self._tasks(ticket))
        for stale in [t for t in self._pending if t != next_ticket]:
            for future in self._pending.pop(stale):
                future.cancel()
        if next_ticket is not None and next_ticket not in self._pending:
            self._pending[next_ticket] = self._submit(self._tasks(next_ticket))
        return [e for future in wanted for e in future.result()]

    def _next_of_stream(self) -> list[Any]:
        number, self._streamed = self._streamed, self._streamed + 1
        if not self._loader.workers:
            examples = self._read(number)
        else:
            wanted = self._pending.pop(number, None) or self._submit([number])
            self._pending[number + 1] = self._submit([number + 1])
            examples = wanted[0].result()
        if not examples:
            raise EndOfData
        return examples

    def _tasks(self, ticket: int) -> list[Task]:
        indices = self.indices(ticket)
        return [
            Task(ticket, block, tuple(indices[start : start + BLOCK]))
            for block, start in enumerate(range(0, len(indices), BLOCK))
        ]

    def _submit(self, tasks: Sequence[Any]) -> list["Future[Any]"]:
        if self._pool is None:
            self._pool = self._start_pool()
        return [self._pool.submit(task) for task in tasks]

    def _start_pool(self) -> LoaderPool:
        # A stream has one position, hence one process.
        return LoaderPool(self._read, self._loader.workers if self._length is not None else 1)

    def _permutation(self, epoch: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(stream_seed(self._seed, "permutation", epoch))
        assert self._length is not None
        return torch.randperm(self._length, generator=generator)


def _length(dataset: Any) -> int:
    indexed = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    if not indexed or isinstance(dataset, Mapping):
        raise ProgramError(
            f"dataset: is a {type(dataset).__name__}, must have a length and items (a torch Dataset, a list) "
            "or be a torch.utils.data.IterableDataset"
        )
    if not len(dataset):
        raise ProgramError("dataset: has no examples; check the path or the split that dataset() reads")
    return len(dataset)


def _split(examples: list[Any], parts: int) -> list[list[Any]]:
    """Split as evenly as can be, in order; a short mini-batch may make fewer parts."""
    base, more = divmod(len(examples), parts)
    ends = [base * n + min(n, more) for n in range(parts + 1)]
    return [examples[a:b] for a, b in pairwise(ends) if b > a]
