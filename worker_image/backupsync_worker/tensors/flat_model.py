"""A torch model as flat sections of bytes: what the wire carries of it, read and written in place.

The model stays the user's own: sections are written into its tensors, wherever they live, and nothing of it
is replaced. Roles: a parameter that requires a gradient now is trainable, another is frozen, and persistent
buffers are buffers. A tensor with several names (tied weights) counts once, under the first of them.
"""

import functools

import numpy as np
import torch
from torch import Tensor, nn

from backupsync.errors import ProgramError
from backupsync.wire.frames import Buffer
from backupsync.wire.schema import Schema, Section, Slot
from backupsync_worker.tensors.device import DTYPES
from backupsync_worker.tensors.gradient import GradientPush
from backupsync_worker.tensors.places import DTYPE_NAMES, places_of, refuse_modules

Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]


class FlatModel:
    """`model` as the wire sees it.

    Raises ProgramError for a model that cannot be trained here: nothing trainable, sparse embeddings, lazy or
    meta tensors, element types the wire lacks, tensors that share memory without being one.
    """

    def __init__(self, model: nn.Module, wire_dtype: str, chunk_bytes: int) -> None:
        self.model = model
        self._wire_dtype, self._chunk_bytes = str(wire_dtype), chunk_bytes
        refuse_modules(model)
        self._places = {place.names[0]: place for place in places_of(model)}
        self.schema = Schema(tuple(place.entry() for place in self._places.values()))
        if not any(p.first.numel() for p in self._places.values() if p.role == "trainable"):
            raise ProgramError(
                f"model {type(model).__name__}: has no trainable parameters; model() must return a module "
                "with at least one parameter that requires a gradient"
            )
        self._clean = self._snapshot()

    @property
    def device(self) -> torch.device:
        """Device of the trainable parameters (of the last, when they are spread)."""
        return self._parameter(self.schema.gradient[0].entry.name).device

    @functools.cached_property
    def gradient(self) -> GradientPush:
        """The push of gradients; made at first use, since a copy for evaluation needs none."""
        slots = self.schema.gradient
        parameters = [self._parameter(slot.entry.name) for slot in slots]
        return GradientPush(slots, parameters, self._wire_dtype, self._chunk_bytes)

    def initial(self) -> tuple[memoryview, memoryview]:
        """Return the sections (moving, frozen) of the present state; buffers of their own, safe to send."""
        return self._read(self.schema.moving), self._read(self.schema.frozen)

    def buffers(self) -> memoryview | None:
        """Return the payload of a COMMIT (layout `buffer_section`), or None for a model without buffers."""
        return self._read(self.schema.buffer_section) if self.schema.buffers else None

    def load(self, section: Section, data: Buffer) -> None:
        """Write a whole section into the model's own tensors; `data` may be read-only and is not kept.

        Raises ValueError when `data` has another length than the section.
        """
        slots = self.schema.moving if section == "moving" else self.schema.frozen
        expected = self.schema.section_bytes(slots)
        if len(data) != expected:
            raise ValueError(f"section {section}: {len(data)} bytes came, the schema has {expected}")
        source = np.frombuffer(data, dtype=np.uint8)
        staged = self._stage(source, slots)
        with torch.no_grad():
            for slot in slots:
                for tensor in self._tensors(slot):
                    if staged is None:
                        _bytes_of(tensor)[:] = source[slot.offset : slot.offset + slot.size]
                    else:
                        tensor.copy_(_window(staged, slot), non_blocking=True)
        if section == "moving":
            self._clean = self._snapshot()

    def reset_buffers(self) -> None:
        """Put the buffers back as the last `load` left them, so that a gradient given up leaves no trace."""
        with torch.no_grad():
            for slot, saved in zip(self.schema.buffer_section, self._clean, strict=True):
                for tensor in self._tensors(slot):
                    tensor.copy_(saved)

    def _snapshot(self) -> list[Tensor]:
        return [self._tensors(slot)[0].detach().clone() for slot in self.schema.buffer_section]

    def _parameter(self, name: str) -> nn.Parameter:
        parameter = self._places[name].first
        assert isinstance(parameter, nn.Parameter)
        return parameter

    def _tensors(self, slot: Slot) -> list[Tensor]:
        place = self._places[slot.entry.name]
        tensors = place.tensors()
        if place.role == "trainable" and any(tensor is not place.first for tensor in tensors):
            raise ProgramError(
                f"parameter {slot.entry.name!r}: was replaced by another while training; change it in place"
            )
        for tensor in tensors:
            if tuple(tensor.shape) != slot.entry.shape or DTYPE_NAMES.get(tensor.dtype) != slot.entry.dtype:
                raise ProgramError(
                    f"tensor {slot.entry.name!r}: became {tensor.dtype}{list(tensor.shape)} while training, "
                    f"was {slot.entry.dtype}{list(slot.entry.shape)}; its shape and element type must stay"
                )
        return tensors

    def _read(self, slots: tuple[Slot, ...]) -> memoryview:
        on_cuda = any(t.is_cuda for slot in slots for t in self._tensors(slot)[:1])
        total = self.schema.section_bytes(slots)
        flat = torch.zeros(total, dtype=torch.uint8, pin_memory=on_cuda)
        for slot in slots:
            _window(flat, slot).copy_(self._tensors(slot)[0].detach(), non_blocking=True)
        if on_cuda:
            torch.cuda.synchronize()
        return flat.numpy().data.toreadonly()

    def _stage(self, source: Bytes, slots: tuple[Slot, ...]) -> Tensor | None:
        """Copy `source` for tensors that cannot take its bytes as they are; None when all can."""
        tensors = [tensor for slot in slots for tensor in self._tensors(slot)]
        if all(t.device.type == "cpu" and t.is_contiguous() for t in tensors):
            return None
        staged = torch.empty(source.size, dtype=torch.uint8, pin_memory=any(t.is_cuda for t in tensors))
        staged.numpy()[:] = source
        return staged


def _bytes_of(tensor: Tensor) -> Bytes:
    """Return the memory of a contiguous tensor of the CPU."""
    return tensor.detach().view(-1).view(torch.uint8).numpy()


def _window(flat: Tensor, slot: Slot) -> Tensor:
    """Return the tensor that lies at `slot` of a flat section."""
    part = flat[slot.offset : slot.offset + slot.size]
    return part.view(DTYPES[slot.entry.dtype]).view(slot.entry.shape)
