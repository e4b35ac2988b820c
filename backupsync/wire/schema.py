"""The model as the wire sees it: named tensors, their flat layouts and the hash both sides compare.

Two flat sections carry a model's state, each tensor at a 64-byte boundary: `moving` (trainable tensors, then
buffers: sent every iteration) and `frozen` (sent once per connection). A gradient is a third flat array: the
trainable tensors in *reverse* order, as backward finishes them, without gaps, in the wire dtype.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, NamedTuple

import msgspec

from backupsync.wire.messages import TensorEntry

ITEM_BYTES: Final = {
    "float64": 8, "float32": 4, "bfloat16": 2, "float16": 2,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip
FLOATING: Final = frozenset({"float64", "float32", "bfloat16", "float16"})
ALIGNMENT: Final = 64

Section = Literal["moving", "frozen"]


class Slot(NamedTuple):
    """Where one tensor lies in a flat section, in bytes."""

    entry: TensorEntry
    offset: int
    size: int


class GradientSlot(NamedTuple):
    """Where one trainable tensor's gradient lies, in elements of the wire dtype."""

    position: int
    """Index among the trainable tensors in model order."""
    entry: TensorEntry
    offset: int
    size: int


def elements(entry: TensorEntry) -> int:
    """Return the number of elements of the tensor."""
    return math.prod(entry.shape)


@dataclass(frozen=True)
class Schema:
    """Every tensor of a model in the order of its `named_parameters`, then `named_buffers`."""

    entries: tuple[TensorEntry, ...]

    @cached_property
    def hash(self) -> bytes:
        """SHA-256 over the canonical msgpack of the entries: peers with other tensors are refused at join."""
        return hashlib.sha256(msgspec.msgpack.encode(self.entries)).digest()

    @cached_property
    def trainable(self) -> tuple[TensorEntry, ...]:
        """Tensors with a gradient, in model order."""
        return tuple(e for e in self.entries if e.role == "trainable")

    @cached_property
    def buffers(self) -> tuple[TensorEntry, ...]:
        """Persistent buffers, in model order."""
        return tuple(e for e in self.entries if e.role == "buffer")

    @cached_property
    def moving(self) -> tuple[Slot, ...]:
        """Layout of the section sent every iteration: trainable tensors, then buffers."""
        return _layout((*self.trainable, *self.buffers))

    @cached_property
    def frozen(self) -> tuple[Slot, ...]:
        """Layout of the section sent once per connection."""
        return _layout(e for e in self.entries if e.role == "frozen")

    @cached_property
    def buffer_section(self) -> tuple[Slot, ...]:
        """Layout of the payload of a COMMIT: the buffers alone."""
        return _layout(self.buffers)

    @cached_property
    def gradient(self) -> tuple[GradientSlot, ...]:
        """Layout of the flat gradient: trainable tensors in reverse, without gaps."""
        slots, offset = [], 0
        for index, entry in reversed(list(enumerate(self.trainable))):
            slots.append(GradientSlot(index, entry, offset, elements(entry)))
            offset += elements(entry)
        return tuple(slots)

    @cached_property
    def gradient_elements(self) -> int:
        """Elements of the flat gradient."""
        return sum(elements(e) for e in self.trainable)

    def section_bytes(self, slots: tuple[Slot, ...]) -> int:
        """Return the bytes of a flat section, padded to the alignment."""
        return _aligned(slots[-1].offset + slots[-1].size) if slots else 0

    def difference(self, other: "Schema") -> str:
        """Say, for a person, the first difference between this model (the job's) and `other` (the peer's)."""
        mine, theirs = ({e.name: e for e in s.entries} for s in (self, other))
        for name, entry in mine.items():
            if name not in theirs:
                return f"tensor {name!r} is missing"
            if entry != theirs[name]:
                return f"tensor {name!r} is {_describe(theirs[name])}, the job's is {_describe(entry)}"
        extra = next((n for n in theirs if n not in mine), None)
        return (
            f"tensor {extra!r} is not in the job's model" if extra else "the tensors stand in another order"
        )


def chunks(total: int, chunk_bytes: int) -> Iterable[tuple[int, int]]:
    """Yield (offset, size) in bytes of the chunks that a flat array of `total` bytes travels in."""
    for offset in range(0, total, chunk_bytes):
        yield offset, min(chunk_bytes, total - offset)


def _layout(entries: Iterable[TensorEntry]) -> tuple[Slot, ...]:
    slots, offset = [], 0
    for entry in entries:
        size = elements(entry) * ITEM_BYTES[entry.dtype]
        slots.append(Slot(entry, offset, size))
        offset = _aligned(offset + size)
    return tuple(slots)


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def _describe(entry: TensorEntry) -> str:
    return f"{entry.role} {entry.dtype}{list(entry.shape)}"
