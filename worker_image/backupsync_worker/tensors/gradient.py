"""The push of one gradient: chunks leave while backward still runs, as soon as all in them is final.

Hooks after gradient accumulation copy each parameter's gradient into one flat array in the wire dtype (the
layout is `Schema.gradient`: reverse model order, as backward finishes). A chunk is handed out when every
parameter that overlaps it is final. The views that `on_chunk` receives own their memory: they may be sent
without a copy and outlive the next gradients. The flat array behind them is used again only when the last
view of it is gone; fresh memory costs a page fault every 4 KiB, a hundred times the copy itself.
"""

import functools
import itertools
import math
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backupsync.errors import ProgramError
from backupsync.wire.schema import ITEM_BYTES, GradientSlot, chunks
from backupsync_worker.tensors.device import DTYPES, CudaCopier, Done, HostCopier, copier_for

OnChunk = Callable[[int, memoryview], None]
"""Takes the offset in bytes and the bytes of a chunk. On CUDA it is called from autograd's own thread,
while the thread that called backward waits."""


@dataclass(frozen=True)
class GradientSummary:
    """What COMMIT says of a gradient."""

    norm: float
    """Global 2-norm before the cast to the wire dtype and before clipping."""
    finite: bool
    """Whether `norm` is finite, and so every element."""
    absent: tuple[int, ...]
    """Indices among the trainable tensors whose gradient is None; zeros stand for them."""


class GradientPush:
    """Copies gradients out of `parameters` (one per slot, in slot order) and hands them out in chunks."""

    def __init__(
        self,
        slots: Sequence[GradientSlot],
        parameters: Sequence[nn.Parameter],
        wire_dtype: str,
        chunk_bytes: int,
    ) -> None:
        self._slots, self._parameters = tuple(slots), tuple(parameters)
        self._dtype, item = DTYPES[wire_dtype], ITEM_BYTES[wire_dtype]
        self._elements = sum(slot.size for slot in slots)
        self._chunks = tuple(chunks(self._elements * item, chunk_bytes))
        self._spans = tuple(_span(s.offset * item, s.size * item, chunk_bytes) for s in slots)
        self._overlaps = [0] * len(self._chunks)
        for index in itertools.chain.from_iterable(self._spans):
            self._overlaps[index] += 1
        self._free: deque[Tensor] = deque()
        self._copiers: dict[torch.device, HostCopier | CudaCopier] = {}
        self._hooks = [
            p.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                functools.partial(self._accumulated, index)
            )
            for index, p in enumerate(self._parameters)
        ]
        self._reset(None)

    @property
    def total_bytes(self) -> int:
        """Bytes of the whole gradient on the wire."""
        return self._chunks[-1][0] + self._chunks[-1][1]

    def begin(self, on_chunk: OnChunk) -> None:
        """Arm the hooks: the backward that follows is the last of its mini-batch."""
        self._reset(on_chunk)

    def finish(self) -> GradientSummary:
        """Hand out what no hook did, set every gradient to None, and sum up.

        A parameter without a gradient is absent and travels as zeros. Raises ProgramError as the hooks do.
        """
        absent = []
        for index, (slot, parameter) in enumerate(zip(self._slots, self._parameters, strict=True)):
            if parameter.grad is None:
                absent.append(slot.position)
                self._flat[slot.offset : slot.offset + slot.size].zero_()
                self._settle(index, None)
            elif not self._taken[index]:
                self._take(index, parameter.grad)
        self._drain(wait=True)
        norm = self._norm()
        self.abort()
        return GradientSummary(norm, math.isfinite(norm), tuple(sorted(absent)))

    def abort(self) -> None:
        """Disarm, and discard every gradient, whole or partial."""
        self._reset(None)
        for parameter in self._parameters:
            parameter.grad = None

    def close(self) -> None:
        """Take the hooks off the parameters."""
        self.abort()
        for hook in self._hooks:
            hook.remove()

    def _reset(self, on_chunk: OnChunk | None) -> None:
        self._on_chunk = on_chunk
        self._flat, self._bytes = self._fresh() if on_chunk else (torch.empty(0), memoryview(b""))
        self._taken = [False] * len(self._slots)
        self._norms: list[Tensor | None] = [None] * len(self._slots)
        self._missing = self._overlaps.copy()
        self._copies: list[list[Done]] = [[] for _ in self._chunks]
        self._sent = [False] * len(self._chunks)
        self._ready: deque[int] = deque()

    def _fresh(self) -> tuple[Tensor, memoryview]:
        """Return a flat array nobody looks at, and the bytes of it; pinned where gradients come from CUDA."""
        try:
            flat = self._free.pop()
        except IndexError:
            pinned = any(self._copier(p).pinned for p in self._parameters)
            flat = torch.empty(self._elements, dtype=self._dtype, pin_memory=pinned)
        array = flat.view(torch.uint8).numpy()
        # Every view, and every slice of a view, holds `array`: when it dies, nobody reads the memory.
        weakref.finalize(array, self._free.append, flat).atexit = False
        return flat, array.data

    def _accumulated(self, index: int, parameter: Tensor) -> None:
        if self._on_chunk is not None and parameter.grad is not None:
            self._take(index, parameter.grad)

    def _take(self, index: int, grad: Tensor) -> None:
        slot = self._slots[index]
        if grad.layout != torch.strided:
            raise ProgramError(
                f"parameter {slot.entry.name!r}: its gradient is sparse ({grad.layout}), and only dense ones "
                "are averaged; construct the embedding with sparse=False"
            )
        if self._taken[index] and any(self._sent[c] for c in self._spans[index]):
            raise ProgramError(
                f"parameter {slot.entry.name!r}: its gradient grew after it was final, as when one parameter "
                "is used in several reentrant checkpoints; pass use_reentrant=False to torch.utils.checkpoint"
            )
        target = self._flat[slot.offset : slot.offset + slot.size].view(slot.entry.shape)
        done = self._copier(grad).copy(target, grad.detach())
        wide = torch.float64 if grad.dtype == torch.float64 else torch.float32
        self._norms[index] = torch.linalg.vector_norm(grad.detach(), dtype=wide)
        self._settle(index, done)
        self._drain(wait=False)

    def _settle(self, index: int, done: Done | None) -> None:
        first, self._taken[index] = not self._taken[index], True
        for chunk in self._spans[index]:
            if done is not None:
                self._copies[chunk].append(done)
            self._missing[chunk] -= first
            if first and not self._missing[chunk]:
                self._ready.append(chunk)

    def _drain(self, wait: bool) -> None:
        """Hand out ready chunks; those whose copy from the GPU is under way stay, unless we `wait`."""
        while self._ready and self._on_chunk is not None:
            chunk = self._ready[0]
            copies = self._copies[chunk]
            if not wait and not all(copy.query() for copy in copies):
                return
            for copy in copies:
                copy.synchronize()
            self._ready.popleft()
            self._sent[chunk] = True
            offset, size = self._chunks[chunk]
            self._on_chunk(offset, self._bytes[offset : offset + size])

    def _norm(self) -> float:
        """Sum in slot order, whatever the order of the hooks: the same bits every time."""
        norms = [norm for norm in self._norms if norm is not None]
        if not norms:
            return 0.0
        together = torch.stack([norm.to(norms[0].device, torch.float64) for norm in norms])
        return math.hypot(*together.tolist())

    def _copier(self, tensor: Tensor) -> HostCopier | CudaCopier:
        if tensor.device not in self._copiers:
            self._copiers[tensor.device] = copier_for(tensor.device)
        return self._copiers[tensor.device]


def _span(offset: int, size: int, chunk_bytes: int) -> range:
    """Return the indices of the chunks that `size` bytes from `offset` overlap."""
    if not size:
        return range(0)
    return range(offset // chunk_bytes, (offset + size - 1) // chunk_bytes + 1)
