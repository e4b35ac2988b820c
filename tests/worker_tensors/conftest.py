"""Small models, and a receiver that puts chunks together as the aggregator does."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Received:
    """Chunks by offset; `tensor` is the flat gradient."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self.chunks: list[tuple[int, memoryview]] = []

    def __call__(self, offset: int, view: memoryview) -> None:
        self.chunks.append((offset, view))

    @property
    def bytes(self) -> bytes:
        end, parts = 0, []
        for offset, view in sorted(self.chunks, key=lambda chunk: chunk[0]):
            assert offset == end, "chunks leave no gap and overlap nowhere"
            parts.append(bytes(view))
            end += len(view)
        return b"".join(parts)

    @property
    def tensor(self) -> torch.Tensor:
        return torch.frombuffer(bytearray(self.bytes), dtype=self.dtype)


@pytest.fixture
def received() -> Received:
    return Received()


@pytest.fixture
def receiver() -> type[Received]:
    return Received


@pytest.fixture
def deep() -> nn.Sequential:
    """Four layers, the last one small: several chunks of 4096 bytes."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(16, 64),
        nn.Tanh(),
        nn.Linear(64, 64),
        nn.Tanh(),
        nn.Linear(64, 64),
        nn.Tanh(),
        nn.Linear(64, 3),
    )
