"""The device of a worker: which one, batches to it, gradients from it through page-locked memory."""

import copy
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, Protocol

import torch
from torch import Tensor

from backupsync.errors import BackupSyncError, ProgramError

DTYPES: Final[dict[str, torch.dtype]] = {
    "float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16,
    "int64": torch.int64, "int32": torch.int32, "int16": torch.int16, "int8": torch.int8,
    "uint8": torch.uint8, "bool": torch.bool,
}  # fmt: skip
"""Element types of the wire, by the names of `backupsync.wire.schema.ITEM_BYTES`."""


def resolve_device(name: str) -> torch.device:
    """Return the device that `spec.training.device` asks for: auto, cpu, cuda or cuda:INDEX.

    Raises BackupSyncError when CUDA is asked for and torch finds none, or no such index.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if available else "cpu")
    device = torch.device(name)
    if device.type != "cuda":
        return device
    if not available:
        raise BackupSyncError(
            f"spec.training.device = {name!r}: torch {torch.__version__} finds no CUDA device here; "
            "set device to auto or cpu, or give the worker a GPU"
        )
    if device.index is not None and device.index >= available:
        raise BackupSyncError(
            f"spec.training.device = {name!r}: this machine has {available} CUDA device(s), "
            f"numbered from 0 to {available - 1}"
        )
    return device


def autocast_dtype(autocast: str, device: torch.device) -> torch.dtype | None:
    """Return the element type of `spec.training.autocast` ("None", bfloat16 or float16) on this device.

    float16 is for CUDA alone and goes without loss scaling: gradients below 6e-8 vanish, so prefer
    bfloat16, which has the range of float32. Raises ProgramError for float16 elsewhere.
    """
    if autocast == "None":
        return None
    if autocast == "float16" and device.type != "cuda":
        raise ProgramError(
            f"spec.training.autocast = 'float16' on device {device.type}: float16 is for CUDA alone, "
            "since its small gradients vanish without the hardware it was made for; set bfloat16 or None"
        )
    return DTYPES[autocast]


def to_device(data: Any, device: torch.device, pin_memory: bool = False) -> Any:
    """Return nested `data` (tuples, lists, mappings, tensors, whatever has `.to`) with tensors on `device`.

    With `pin_memory` and a CUDA device, tensors go through page-locked memory and are copied asynchronously.
    """
    if isinstance(data, Tensor):
        pinned = pin_memory and device.type == "cuda" and data.device.type == "cpu"
        return data.pin_memory().to(device, non_blocking=True) if pinned else data.to(device)
    if hasattr(data, "to"):
        return data.to(device)
    if isinstance(data, Mapping):
        return _mapping(data, {k: to_device(v, device, pin_memory) for k, v in data.items()})
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(to_device(v, device, pin_memory) for v in data))
    if type(data) in (tuple, list):
        return type(data)(to_device(v, device, pin_memory) for v in data)
    return data


def _mapping(like: Mapping[Any, Any], moved: dict[Any, Any]) -> Mapping[Any, Any]:
    """Return `moved` as the same kind of mapping where that can be had (a defaultdict keeps its factory)."""
    if type(like) is dict or not isinstance(like, MutableMapping):
        return moved
    clone = copy.copy(like)
    clone.update(moved)
    return clone


class Done(Protocol):
    """A copy under way, as `torch.cuda.Event` has it."""

    def query(self) -> bool:
        """Whether the copy has ended."""
        ...

    def synchronize(self) -> None:
        """Wait until it has."""
        ...


class HostCopier:
    """Copies between tensors of the CPU: done when `copy` returns."""

    pinned = False

    def copy(self, target: Tensor, source: Tensor) -> Done | None:
        """Copy `source` to `target`, with a cast where their element types differ."""
        target.copy_(source)
        return None


class CudaCopier:
    """Copies from a GPU to page-locked memory on a stream of its own, beside the backward that goes on."""

    pinned = True

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def copy(self, target: Tensor, source: Tensor) -> Done | None:
        """Start to copy `source` to `target` (page-locked); the cast runs on the GPU."""
        self._stream.wait_stream(torch.cuda.current_stream(source.device))
        with torch.cuda.stream(self._stream):
            dense = source.to(target.dtype, memory_format=torch.contiguous_format)
            target.copy_(dense, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(self._stream)
        # The allocator must not hand this memory to the compute stream while the copy reads it.
        source.record_stream(self._stream)
        return event


def copier_for(device: torch.device) -> HostCopier | CudaCopier:
    """Return what copies gradients from `device` to the host."""
    return CudaCopier(device) if device.type == "cuda" else HostCopier()
