"""The optimizer's state as named tensors, and back to the last bit."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from backupsync.errors import CheckpointError
from backupsync_aggregator.tensors.optimizer import trial_step

Scalar = bool | int | float | str | None
Scalars = Mapping[str, Mapping[str, Scalar]]


def state_of(
    optimizer: torch.optim.Optimizer, tensors: Sequence[torch.Tensor]
) -> tuple[dict[str, torch.Tensor], dict[str, dict[str, Scalar]]]:
    """Return the state as tensors named `POSITION.KEY`, and what is no tensor as {POSITION: {KEY: value}}."""
    named: dict[str, torch.Tensor] = {}
    scalars: dict[str, dict[str, Scalar]] = {}
    for position, tensor in enumerate(tensors):
        for key, value in optimizer.state.get(tensor, {}).items():
            if isinstance(value, torch.Tensor):
                named[f"{position}.{key}"] = value
            else:
                scalars.setdefault(str(position), {})[key] = value
    return named, scalars


def restore_state(
    optimizer: torch.optim.Optimizer,
    tensors: Sequence[torch.Tensor],
    named: Mapping[str, torch.Tensor],
    scalars: Scalars,
) -> None:
    """Put back what `state_of` returned; the tensors become the optimizer's own.

    Raises CheckpointError when the optimizer with its present keywords needs another state. A tensor that
    never had a gradient has no state yet, and gets none.
    """
    states: dict[int, dict[str, Any]] = {int(p): dict(values) for p, values in scalars.items()}
    for name, value in named.items():
        index, key = name.split(".", 1)
        states.setdefault(int(index), {})[key] = value
    needed = _needed_keys(optimizer, tensors)
    for position, state in states.items():
        if needed[position] != set(state):
            raise CheckpointError(
                f"checkpoint: the optimizer's state holds {sorted(state)}, spec.training.optimizer as it "
                f"stands needs {sorted(needed[position])}: restore the keywords it was written with, or name "
                "another directory in spec.checkpoint.path to start afresh"
            )
        optimizer.state[tensors[position]] = state


def _needed_keys(optimizer: torch.optim.Optimizer, tensors: Sequence[torch.Tensor]) -> list[set[str]]:
    """Return what one step leaves in the state of each tensor, found out on miniatures."""
    miniatures = [torch.ones([1] * tensor.dim(), dtype=tensor.dtype) for tensor in tensors]
    position = {id(tensor): index for index, tensor in enumerate(tensors)}
    groups = [
        {key: value for key, value in group.items() if key != "params"}
        | {"params": [miniatures[position[id(tensor)]] for tensor in group["params"]]}
        for group in optimizer.param_groups
    ]
    kind: Callable[..., torch.optim.Optimizer] = type(optimizer)
    trial = kind(groups)
    trial_step(trial)
    return [set(trial.state.get(miniature, {})) for miniature in miniatures]
