"""Safetensors files by their format alone, without torch: check one, and take a model out of a checkpoint.

Layout (https://huggingface.co/docs/safetensors): 8 bytes little-endian length, a JSON header of that length
with dtype, shape and byte range of each tensor, then the bytes.
"""

import json
import math
import shutil
from pathlib import Path
from typing import Any, BinaryIO, Final

from msgspec import Struct

from backupsync.errors import CheckpointError

_LARGEST_HEADER: Final = 100_000_000
"""What the safetensors library itself takes at most."""
_SIZES: Final = {
    "F64": 8, "F32": 4, "BF16": 2, "F16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
_NAMES: Final = {
    "float64": "F64", "float32": "F32", "bfloat16": "BF16", "float16": "F16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


class Tensor(Struct, frozen=True):
    """Where a tensor lies in a file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    """Offset from the end of the header, in bytes."""
    end: int


def read_header(path: Path) -> tuple[dict[str, Tensor], int]:
    """Return the tensors of a file, checked against its size, and the offset of its data.

    Raises CheckpointError for a file that is truncated or no safetensors file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(_LARGEST_HEADER, size - 8):
            raise CheckpointError(f"{path}: is no safetensors file, or truncated")
        try:
            header: dict[str, Any] = json.loads(file.read(length))
            tensors = {
                name: Tensor(told["dtype"], tuple(told["shape"]), *told["data_offsets"])
                for name, told in header.items()
                if name != "__metadata__"
            }
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{path}: its header cannot be read: {error}") from error
    at = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        bytes_wanted = math.prod(tensor.shape) * _SIZES.get(tensor.dtype, 0)
        if tensor.begin != at or tensor.end - tensor.begin != bytes_wanted:
            raise CheckpointError(f"{path}: tensor {name}: its bytes do not fit its shape")
        at = tensor.end
    if 8 + length + at != size:
        raise CheckpointError(f"{path}: is truncated: {size} bytes, its header speaks of {8 + length + at}")
    return tensors, 8 + length


def extract_model(state: Path, entries: list[dict[str, Any]], target: Path, *, averaged: bool) -> None:
    """Write the model of a checkpoint's `state.safetensors` to `target`, under the names of its `state_dict`.

    `entries` are the checkpoint's schema; `averaged` takes the moving average of the trainable parameters.
    Raises CheckpointError where the checkpoint keeps no average, or lacks a tensor.
    """
    tensors, data = read_header(state)
    if averaged and not any(name.startswith("average.") for name in tensors):
        raise CheckpointError("the job keeps no moving average; set spec.training.emaDecay for one")
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    pieces: list[tuple[Tensor, str]] = []
    at = 0
    for entry in entries:
        role = "average" if averaged and entry["role"] == "trainable" else entry["role"]
        found = tensors.get(f"{role}.{entry['name']}")
        if found is None:
            raise CheckpointError(f"{state}: lacks the tensor {role}.{entry['name']}")
        wanted = _NAMES[entry["dtype"]]
        size = math.prod(found.shape) * _SIZES[wanted]
        for name in (entry["name"], *entry.get("aliases", ())):
            header[name] = {"dtype": wanted, "shape": list(found.shape), "data_offsets": [at, at + size]}
            pieces.append((found, wanted))
            at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with state.open("rb") as source, target.open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor, dtype in pieces:
            source.seek(data + tensor.begin)
            _copy(source, file, tensor, dtype)


def _copy(source: BinaryIO, target: BinaryIO, tensor: Tensor, dtype: str) -> None:
    if tensor.dtype == dtype:
        left = tensor.end - tensor.begin
        while left:
            piece = source.read(min(left, 16 * 1024 * 1024))
            target.write(piece)
            left -= len(piece)
        return
    target.write(_rounded(source.read(tensor.end - tensor.begin), tensor.dtype, dtype))


def _rounded(data: bytes, given: str, wanted: str) -> bytes:
    """Round float32 masters to the model's own half precision, as the aggregator publishes them."""
    try:
        import numpy as np  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise CheckpointError(f"rounding {given} to {wanted} needs numpy: pip install numpy") from error
    if (given, wanted) == ("F32", "F16"):
        return np.frombuffer(data, "<f4").astype("<f2").tobytes()
    if (given, wanted) == ("F32", "BF16"):
        bits = np.frombuffer(data, "<u4").astype(np.uint64)
        rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
        return (
            np.where(np.isnan(np.frombuffer(data, "<f4")), np.uint16(0x7FC0), rounded).astype("<u2").tobytes()
        )
    raise CheckpointError(f"a tensor of {given} cannot be made {wanted}")


def move_into_place(files: dict[Path, Path]) -> list[Path]:
    """Rename whole files to their places, replacing what is there; return the places."""
    for draft, place in files.items():
        shutil.move(draft, place)
    return list(files.values())
