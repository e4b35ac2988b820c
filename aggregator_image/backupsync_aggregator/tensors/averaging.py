"""The mean of the accepted gradients and buffers: in order of place, so that replay gives the same bits.

Nothing is allocated per gradient: every sum runs in place into one flat array, block by block, so that a
block stays in the cache while all k gradients are added to it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from backupsync.wire.frames import Buffer
from backupsync.wire.schema import FLOATING, Schema
from backupsync_aggregator.tensors.sections import copy_in, span_view, spans

BLOCK_ELEMENTS: Final = 128 * 1024
"""float32 elements summed at a time: half a megabyte, about the second-level cache of one core."""


@dataclass(frozen=True, slots=True)
class WeightedGradient:
    """One accepted gradient."""

    flat: torch.Tensor
    """1-D, the wire dtype, laid out as `Schema.gradient`."""
    examples: int
    """Examples it is the mean over, at least 1."""
    scale: float
    """Factor of clipping, at most 1."""
    absent: tuple[int, ...] = ()
    """Positions among the trainable tensors whose gradient is None; their elements count as zero."""
    buffers: Buffer | None = None
    """Bytes laid out as `Schema.buffer_section`; None where the model has no buffers."""


class GradientMean:
    """Mean over gradients, weighted by examples, each times its scale: float32, summed in order of place."""

    def __init__(self, schema: Schema) -> None:
        self._slots = {slot.position: slot for slot in schema.gradient}
        self.flat = torch.zeros(schema.gradient_elements)
        self._views = [
            self.flat[slot.offset : slot.offset + slot.size].view(slot.entry.shape)
            for _, slot in sorted(self._slots.items())
        ]

    def take(self, gradients: Sequence[WeightedGradient]) -> list[torch.Tensor | None]:
        """Return the mean by position among the trainable tensors, valid until the next call.

        A gradient is None only if it is absent in all; absent in some means zero. Raises ValueError for
        gradients that are not of this model.
        """
        weights = self._weights(gradients)
        pieces = [list(self._present(gradient)) for gradient in gradients]
        self.flat.zero_()
        for start in range(0, self.flat.numel(), BLOCK_ELEMENTS):
            stop = start + BLOCK_ELEMENTS
            for gradient, weight, present in zip(gradients, weights, pieces, strict=True):
                for first, last in present:
                    if first < stop and last > start:
                        cut = slice(max(first, start), min(last, stop))
                        self.flat[cut].add_(gradient.flat[cut], alpha=weight)
        nowhere = set.intersection(*(set(gradient.absent) for gradient in gradients))
        return [None if position in nowhere else view for position, view in enumerate(self._views)]

    def _weights(self, gradients: Sequence[WeightedGradient]) -> list[float]:
        if not gradients or any(gradient.examples < 1 for gradient in gradients):
            raise ValueError("an update needs gradients, each over at least 1 example")
        for gradient in gradients:
            if gradient.flat.shape != self.flat.shape:
                found = list(gradient.flat.shape)
                raise ValueError(f"a gradient of shape {found}, the model's is [{self.flat.numel()}]")
        total = sum(gradient.examples for gradient in gradients)
        return [gradient.scale * gradient.examples / total for gradient in gradients]

    def _present(self, gradient: WeightedGradient) -> Iterator[tuple[int, int]]:
        """Yield the ranges of elements between the absent tensors."""
        start = 0
        for slot in sorted((self._slots[position] for position in gradient.absent), key=lambda s: s.offset):
            if slot.offset > start:
                yield start, slot.offset
            start = slot.offset + slot.size
        if self.flat.numel() > start:
            yield start, self.flat.numel()


class BufferMean:
    """Buffers of an update: the floating ones averaged over the accepted, the others from place 0."""

    def __init__(self, schema: Schema) -> None:
        self._bytes = schema.section_bytes(schema.buffer_section)
        self._spans = spans(schema.buffer_section, self._bytes)

    def take(self, gradients: Sequence[WeightedGradient], section: torch.Tensor) -> None:
        """Write the result into `section` (1-D bytes). Raises ValueError for buffers of another model."""
        carried = [(gradient, gradient.buffers) for gradient in gradients if gradient.buffers is not None]
        if not self._spans or not carried:
            return
        for _, buffers in carried:
            if (size := memoryview(buffers).nbytes) != self._bytes:
                raise ValueError(f"buffers of {size} bytes, the model's take {self._bytes}")
        total = sum(gradient.examples for gradient, _ in carried)
        first = copy_in(carried[0][1])
        sums = {span: _wide(span_view(first, span)) for span in self._spans if span.dtype in FLOATING}
        for gradient, buffers in carried[1:]:
            other = copy_in(buffers)
            for span, mean in sums.items():
                _towards(mean, span_view(other, span), span_view(first, span), gradient.examples / total)
        section.copy_(first)
        for span, mean in sums.items():
            span_view(section, span).copy_(mean)


def _towards(mean: torch.Tensor, value: torch.Tensor, first: torch.Tensor, weight: float) -> None:
    """Add weight × (value - first), and exactly nothing where both agree.

    So a constant buffer (a mask of -inf, a table of positions) stays itself to the last bit, for ever.
    """
    agrees = value == first
    difference = _wide(value).sub_(first).mul_(weight)
    mean.add_(difference.masked_fill_(agrees, 0.0))


def _wide(values: torch.Tensor) -> torch.Tensor:
    return values.to(torch.float64 if values.dtype is torch.float64 else torch.float32, copy=True)
