"""Random numbers as pure functions of (seed, stream): no worker holds a random state across tickets.

`seed_everything(seed, "compute", ticket)` makes dropout, augmentation and whatever else draws from the global
generators of Python, NumPy and torch (CPU and CUDA) the same on whichever worker computes the ticket. A
`numpy.random.default_rng()` made without a seed is out of reach; seed it from `torch.initial_seed()`.
"""

import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

Stream = str | int


def stream_seed(seed: int, *stream: Stream) -> int:
    """Return the 63-bit seed of one stream: SHA-256 of the job's seed and the stream's name."""
    return int.from_bytes(_digest(seed, stream)[:8], "little") >> 1


def seed_everything(seed: int, *stream: Stream) -> None:
    """Seed Python's `random`, NumPy's global state and torch (CPU and every CUDA device) for one stream."""
    digest = _digest(seed, stream)
    random.seed(digest)
    np.random.seed(np.frombuffer(digest[8:24], dtype="<u4"))
    torch.manual_seed(int.from_bytes(digest[:8], "little") >> 1)


@contextmanager
def preserved() -> Iterator[None]:
    """Let the body seed and draw as it likes, then put every global generator back as it was."""
    python, legacy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if _cuda_in_use() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


def _digest(seed: int, stream: tuple[Stream, ...]) -> bytes:
    return hashlib.sha256(json.dumps([seed, *stream]).encode()).digest()


def _cuda_in_use() -> bool:
    return torch.cuda.is_available() and bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
