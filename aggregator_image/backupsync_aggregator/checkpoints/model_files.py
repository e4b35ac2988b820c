"""The trained model as a person takes it home: safetensors with the names of their own `state_dict`.

`model.load_state_dict(safetensors.torch.load_file("model.safetensors"))` works, tied weights included: every
alias stands as a tensor of its own.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch

from backupsync.wire.frames import Buffer
from backupsync.wire.schema import Slot
from backupsync_aggregator.checkpoints.tensor_files import write_tensors
from backupsync_aggregator.tensors.model_state import ModelState
from backupsync_aggregator.tensors.sections import copy_in, slot_view

MODEL_FILE: Final = "model.safetensors"
AVERAGED_FILE: Final = "model-ema.safetensors"
_METADATA: Final = {"format": "pt"}


def state_dict(state: ModelState, *, averaged: bool) -> dict[str, torch.Tensor]:
    """Return the model's `state_dict` in its own dtypes, from the average or from the current parameters."""
    moving = state.evaluation_section() if averaged else state.published()
    pairs = (*_tensors(state.schema.moving, moving), *_tensors(state.schema.frozen, state.frozen_section()))
    return {name: tensor for slot, tensor in pairs for name in (slot.entry.name, *slot.entry.aliases)}


def write_models(state: ModelState, folder: Path) -> list[str]:
    """Write the model files into `folder`, which holds none yet, and return their names. Raises OSError."""
    write_tensors(folder / MODEL_FILE, state_dict(state, averaged=False), _METADATA)
    if not state.averaged:
        return [MODEL_FILE]
    write_tensors(folder / AVERAGED_FILE, state_dict(state, averaged=True), _METADATA)
    return [MODEL_FILE, AVERAGED_FILE]


def _tensors(slots: tuple[Slot, ...], data: Buffer) -> Iterator[tuple[Slot, torch.Tensor]]:
    section = copy_in(data)
    for slot in slots:
        yield slot, slot_view(section, slot)
