"""Flat sections as tensors: a model's tensors are views into a few flat arrays, so that work is flat too.

A *span* is a run of neighbouring tensors of one dtype within a section. Most models are one span, and then
publishing, averaging and casting are one operation each.
"""

import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from backupsync.wire.frames import Buffer
from backupsync.wire.schema import ITEM_BYTES, Slot

DTYPES: Final = {
    name: getattr(torch, name) for name in ITEM_BYTES
}  # msgpack names are torch's own attribute names


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes [start, stop) of a section, padding included, all of one dtype."""

    dtype: str
    start: int
    stop: int
    slots: tuple[Slot, ...]

    @property
    def elements(self) -> int:
        """Elements of the dtype, padding included."""
        return (self.stop - self.start) // ITEM_BYTES[self.dtype]


def spans(slots: Sequence[Slot], total: int) -> tuple[Span, ...]:
    """Cut `slots`, which fill a section up to `total` bytes, into spans."""
    runs: list[list[Slot]] = []
    for slot in slots:
        if runs and runs[-1][-1].entry.dtype == slot.entry.dtype:
            runs[-1].append(slot)
        else:
            runs.append([slot])
    stops = [*(run[0].offset for run in runs), total][1:]
    return tuple(
        Span(run[0].entry.dtype, run[0].offset, stop, tuple(run))
        for run, stop in zip(runs, stops, strict=True)
    )


def copy_in(data: Buffer) -> torch.Tensor:
    """Return a copy of `data` as a 1-D tensor of bytes."""
    flat = torch.empty(memoryview(data).nbytes, dtype=torch.uint8)
    flat.numpy()[:] = np.frombuffer(data, dtype=np.uint8)
    return flat


def span_view(section: torch.Tensor, span: Span) -> torch.Tensor:
    """Return the span of a section (1-D bytes) as a 1-D tensor of its dtype."""
    return section[span.start : span.stop].view(DTYPES[span.dtype])


def slot_view(section: torch.Tensor, slot: Slot) -> torch.Tensor:
    """Return one tensor of a section (1-D bytes)."""
    flat = section[slot.offset : slot.offset + slot.size].view(DTYPES[slot.entry.dtype])
    return flat.view(slot.entry.shape)


def read_only(section: torch.Tensor) -> memoryview:
    """Return the bytes of `section`, unwritable; they live as long as anyone (a socket too) holds them."""
    array = section.numpy().view()
    array.flags.writeable = False
    return array.data


class Recycler:
    """Memory for published sections, used again once nobody holds what was published in it.

    A large section in new memory costs more time in page faults than in copying.
    """

    def __init__(self, size: int, spare: int = 2) -> None:
        self._size = size
        self._spare: deque[torch.Tensor] = deque(maxlen=spare)

    def take(self) -> torch.Tensor:
        """Return a section (1-D bytes) with anything in it."""
        try:
            return self._spare.pop()
        except IndexError:
            return torch.empty(self._size, dtype=torch.uint8)

    def publish(self, section: torch.Tensor) -> memoryview:
        """Return the bytes of `section`, unwritable; it comes back here when the last holder lets go of them.

        Holders may be sockets: a send without a copy keeps the memoryview, and through it the array below.
        """
        array = section.numpy().view()
        array.flags.writeable = False
        weakref.finalize(array, self._spare.append, section).atexit = False
        return array.data


class MasterStore:
    """Masters: float32 (for float64, float64) values of the trainable tensors, views into one flat array.

    `views[position]` is the tensor at that position among the trainable ones. Every span keeps the element
    offsets it has in the moving section, so a whole span is cast and copied at once.
    """

    def __init__(self, slots: Sequence[Slot], total: int) -> None:
        self._spans = spans(slots, total)
        sizes: dict[torch.dtype, int] = {}
        starts = []
        for span in self._spans:
            starts.append(sizes.setdefault(_master(span), 0))
            sizes[_master(span)] += span.elements
        self.flats = {dtype: torch.zeros(size, dtype=dtype) for dtype, size in sizes.items()}
        self._cuts = [
            self.flats[_master(span)][start : start + span.elements]
            for span, start in zip(self._spans, starts, strict=True)
        ]
        self.views: list[torch.Tensor] = []
        for span, cut in zip(self._spans, self._cuts, strict=True):
            width = ITEM_BYTES[span.dtype]
            for slot in span.slots:
                first = (slot.offset - span.start) // width
                view = cut[first : first + slot.size // width].view(slot.entry.shape)
                self.views.append(view)

    def load(self, section: torch.Tensor) -> None:
        """Take the values of a moving section (1-D bytes)."""
        for slot, view in zip(self._slots(), self.views, strict=True):
            view.copy_(slot_view(section, slot))

    def store(self, section: torch.Tensor) -> None:
        """Write the values, rounded to the model's dtypes, and zeros between them, into a moving section."""
        for span, cut in zip(self._spans, self._cuts, strict=True):
            span_view(section, span).copy_(cut)

    def copy_from(self, other: "MasterStore") -> None:
        """Take the values of another store of the same layout."""
        for dtype, flat in self.flats.items():
            flat.copy_(other.flats[dtype])

    def lerp_(self, other: "MasterStore", weight: float) -> None:
        """Move towards `other` by `weight`."""
        for dtype, flat in self.flats.items():
            flat.lerp_(other.flats[dtype], weight)

    def _slots(self) -> list[Slot]:
        return [slot for span in self._spans for slot in span.slots]


def _master(span: Span) -> torch.dtype:
    return torch.float64 if span.dtype == "float64" else torch.float32
