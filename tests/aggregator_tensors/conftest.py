"""What the tests of the aggregator's tensors share: manifests, and real modules seen through their schema."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from backupsync.spec import JobSpec
from backupsync.wire.messages import TensorEntry
from backupsync.wire.schema import ITEM_BYTES, Schema, Slot
from backupsync_aggregator.tensors.model_state import ModelState, WeightedGradient


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def job_spec(
    workers: int = 2, batch_size: int = 4, optimizer: dict[str, Any] | None = None, **training
) -> JobSpec:
    """A manifest's spec; SGD at 0.1 unless the test says otherwise."""
    return JobSpec.model_validate(
        {
            "program": {"entrypoint": "program:Program"},
            "aggregation": {"workers": workers},
            "training": {
                "iterations": 100,
                "batchSize": batch_size,
                "optimizer": {"name": "SGD", "lr": 0.1} | (optimizer or {}),
                **training,
            },
        }
    )


def entry(name: str, *shape: int, dtype: str = "float32", role: str = "trainable", aliases=()) -> TensorEntry:
    return TensorEntry(name, dtype, tuple(shape), role, tuple(aliases))


@dataclass
class Seen:
    """A module as a worker shows it: schema, sections, gradients; and back."""

    module: nn.Module

    def __post_init__(self) -> None:
        names: dict[int, list[str]] = {}
        tensors = dict(self.module.named_parameters(remove_duplicate=False)) | {
            name: tensor for name, tensor in self.module.named_buffers() if name in self.module.state_dict()
        }
        for name, tensor in tensors.items():
            names.setdefault(id(tensor), []).append(name)
        self.tensors = {spelled[0]: tensors[spelled[0]] for spelled in names.values()}
        self.schema = Schema(
            tuple(
                entry(
                    name,
                    *tensors[name].shape,
                    dtype=str(tensors[name].dtype).removeprefix("torch."),
                    role=self._role(tensors[name]),
                    aliases=aliases,
                )
                for name, *aliases in names.values()
            )
        )

    @staticmethod
    def _role(tensor: torch.Tensor) -> str:
        if not isinstance(tensor, nn.Parameter):
            return "buffer"
        return "trainable" if tensor.requires_grad else "frozen"

    def section(self, slots: tuple[Slot, ...]) -> bytes:
        flat = torch.zeros(self.schema.section_bytes(slots), dtype=torch.uint8)
        for slot in slots:
            part = flat[slot.offset : slot.offset + slot.size]
            part.copy_(self.tensors[slot.entry.name].detach().contiguous().view(-1).view(torch.uint8))
        return flat.numpy().tobytes()

    def state(self, spec: JobSpec) -> ModelState:
        moving, frozen = self.section(self.schema.moving), self.section(self.schema.frozen)
        return ModelState.initial(self.schema, spec, moving, frozen)

    def buffers(self) -> bytes | None:
        return self.section(self.schema.buffer_section) if self.schema.buffers else None

    def load(self, section) -> None:
        """Take the values of a moving section."""
        with torch.no_grad():
            for name, value in values(self.schema, section).items():
                self.tensors[name].copy_(value)

    def gradient(self, examples: int, dtype=torch.float32, scale: float = 1.0) -> WeightedGradient:
        """What backward left in `.grad`, which is cleared, as it travels."""
        flat = torch.zeros(self.schema.gradient_elements, dtype=dtype)
        absent = []
        for slot in self.schema.gradient:
            parameter = self.tensors[slot.entry.name]
            if parameter.grad is None:
                absent.append(slot.position)
            else:
                flat[slot.offset : slot.offset + slot.size] = parameter.grad.reshape(-1)
        self.module.zero_grad(set_to_none=True)
        return WeightedGradient(flat, examples, scale, tuple(absent), self.buffers())


def values(schema: Schema, section) -> dict[str, torch.Tensor]:
    """The tensors of a moving section by name."""
    flat = torch.frombuffer(bytearray(section), dtype=torch.uint8)
    return {
        slot.entry.name: flat[slot.offset : slot.offset + slot.size]
        .view(getattr(torch, slot.entry.dtype))
        .view(slot.entry.shape)
        for slot in schema.moving
    }


def moving_of(schema: Schema, **tensors: torch.Tensor) -> bytes:
    """A moving section with these values, and zeros for what is not named."""
    flat = torch.zeros(schema.section_bytes(schema.moving), dtype=torch.uint8)
    _write(flat, schema.moving, tensors)
    return flat.numpy().tobytes()


def buffers_of(schema: Schema, **tensors: torch.Tensor) -> bytes:
    """A buffer section with these values, and zeros for what is not named."""
    flat = torch.zeros(schema.section_bytes(schema.buffer_section), dtype=torch.uint8)
    _write(flat, schema.buffer_section, tensors)
    return flat.numpy().tobytes()


def _write(flat: torch.Tensor, slots: tuple[Slot, ...], tensors: dict[str, torch.Tensor]) -> None:
    for slot in slots:
        if slot.entry.name in tensors:
            value = tensors[slot.entry.name].reshape(-1)
            assert value.element_size() == ITEM_BYTES[slot.entry.dtype]
            flat[slot.offset : slot.offset + slot.size] = value.view(torch.uint8)


def random_gradients(
    schema: Schema, count: int, seed: int, examples: int = 4, buffers=None
) -> list[WeightedGradient]:
    generator = torch.Generator().manual_seed(seed)
    return [
        WeightedGradient(
            torch.randn(schema.gradient_elements, generator=generator), examples, 1.0, (), buffers
        )
        for _ in range(count)
    ]


class Toys:
    """The helpers above, for tests, which cannot import each other."""

    spec = staticmethod(job_spec)
    entry = staticmethod(entry)
    values = staticmethod(values)
    moving = staticmethod(moving_of)
    buffers = staticmethod(buffers_of)
    gradients = staticmethod(random_gradients)
    seen = Seen

    @staticmethod
    def state(schema: Schema, spec: JobSpec, **tensors: torch.Tensor) -> ModelState:
        return ModelState.initial(
            schema, spec, moving_of(schema, **tensors), bytes(schema.section_bytes(schema.frozen))
        )


@pytest.fixture
def toys() -> type[Toys]:
    return Toys
