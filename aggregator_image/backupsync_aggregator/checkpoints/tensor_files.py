"""Tensor files in the safetensors format, written in one pass: durable, hashed on the way, no copies.

Layout (https://huggingface.co/docs/safetensors): 8 bytes little-endian length, a JSON header of that length
with dtype, shape and byte range of each tensor, then the bytes. `safetensors` reads them.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch

_NAMES: Final = {
    torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_PIECE: Final = 16 * 1024 * 1024


class _HashedFile:
    """A new file, hashed as it is written."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self._hash = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self._file.write(data)

    def finish(self) -> str:
        """Flush to the disk itself, and return the SHA-256 (hex)."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._hash.hexdigest()

    def close(self) -> None:
        self._file.close()


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    """Write a new file and return its SHA-256 (hex); it is on the disk then. Raises OSError."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return write_pieces(path, [len(text).to_bytes(8, "little"), text], tensors)


def write_pieces(path: Path, head: list[bytes], tensors: Mapping[str, torch.Tensor]) -> str:
    """Write `head`, then the tensors' bytes, into a new file; return its SHA-256 (hex). Raises OSError."""
    file = _HashedFile(path)
    try:
        for piece in head:
            file.write(piece)
        for tensor in tensors.values():
            data = _bytes(tensor)
            for start in range(0, len(data), _PIECE):
                file.write(data[start : start + _PIECE])
        return file.finish()
    finally:
        file.close()


def file_digest(path: Path) -> str:
    """Return the SHA-256 (hex) of a file. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bytes(tensor: torch.Tensor) -> memoryview:
    flat = tensor.detach().contiguous().view(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")
