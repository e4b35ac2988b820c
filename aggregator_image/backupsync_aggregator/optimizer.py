"""The optimizer: a class of `torch.optim` by name, its groups by pattern, its state as named tensors.

It runs in the aggregator alone, so there is one optimizer state wherever workers come and go.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

import torch

from backupsync.errors import CheckpointError
from backupsync.spec import OptimizerSpec, Problem
from backupsync.wire.messages import TensorEntry
from backupsync_aggregator.catalogue import keyword_problems, name_problem, number, numbers, subclasses

FIELD: Final = "spec.training.optimizer"

_UNFIT: Final = {
    "LBFGS": "re-evaluates the loss within a step, which the aggregator cannot: it holds gradients, no model",
    "SparseAdam": "takes sparse gradients only, and gradients travel dense",
}
_UNFIT_KEYWORDS: Final = {
    "params": "is filled by BackupSync with the model's trainable parameters",
    "differentiable": "records the step for a second backward pass, and there is none here",
    "capturable": "is for CUDA graphs; the optimizer runs on the aggregator's CPU",
}
_UNFIT_IN_GROUP: Final = _UNFIT_KEYWORDS | {
    "foreach": "is set for all groups: move it to spec.training.optimizer",
    "fused": "is set for all groups: move it to spec.training.optimizer",
}
Scalar = bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class Group:
    """One parameter group: positions among the trainable tensors, and its own keywords, `lr` included."""

    positions: tuple[int, ...]
    keywords: dict[str, Any]


def optimizer_class(spec: OptimizerSpec) -> type[torch.optim.Optimizer]:
    """Return the class that `spec.name` names. Raises KeyError for one that `optimizer_problems` reports."""
    return subclasses(torch.optim, torch.optim.Optimizer)[spec.name]


def optimizer_problems(spec: OptimizerSpec) -> list[Problem]:
    """Return everything wrong with `spec` that can be seen without a model."""
    classes = subclasses(torch.optim, torch.optim.Optimizer)
    unknown = name_problem(f"{FIELD}.name", spec.name, classes, _UNFIT, "torch.optim")
    if unknown:
        return [unknown]
    kind = classes[spec.name]
    problems = keyword_problems(FIELD, kind, spec.keywords, _UNFIT_KEYWORDS)
    for index, group in enumerate(spec.groups):
        where = f"{FIELD}.groups.{index}"
        problems += keyword_problems(where, kind, group.overrides, _UNFIT_IN_GROUP)
    return problems or _trial_problems(spec)


def group_problems(spec: OptimizerSpec, trainable: Sequence[TensorEntry]) -> list[Problem]:
    """Return everything wrong with `spec` (which has no `optimizer_problems`) for these tensors."""
    groups = assign_groups(spec, trainable)
    problems = []
    for index, (wanted, group) in enumerate(zip(spec.groups, groups[1:], strict=True)):
        if not group.positions:
            names = ", ".join(entry.name for entry in trainable[:8]) + (", ..." if len(trainable) > 8 else "")
            taken = any(_matches(wanted.match, entry) for entry in trainable)
            why = (
                "matches only parameters that an earlier group takes; the first match wins"
                if taken
                else f"matches no trainable parameter; the model has {names}"
            )
            problems.append(Problem(f"{FIELD}.groups.{index}.match", repr(wanted.match), why))
    failure = _failure(spec, groups, [_miniature(entry) for entry in trainable])
    if failure:
        problems.append(Problem(f"{FIELD}.name", repr(spec.name), f"cannot train this model: {failure}"))
    return problems


def assign_groups(spec: OptimizerSpec, trainable: Sequence[TensorEntry]) -> list[Group]:
    """Return the base group, then one group for each of `spec.groups` (maybe empty); the first match wins."""
    members: list[list[int]] = [[] for _ in range(len(spec.groups) + 1)]
    for position, entry in enumerate(trainable):
        hits = (i for i, group in enumerate(spec.groups, 1) if _matches(group.match, entry))
        members[next(hits, 0)].append(position)
    base = numbers({"lr": spec.lr, **spec.keywords})
    keywords = [base, *(base | numbers(group.overrides) for group in spec.groups)]
    return [Group(tuple(m), k) for m, k in zip(members, keywords, strict=True)]


def build(
    spec: OptimizerSpec, groups: Sequence[Group], tensors: Sequence[torch.Tensor]
) -> torch.optim.Optimizer:
    """Return the optimizer over `tensors` (by position), with every group, empty ones too, in order.

    Steps run over lists of tensors at once (`foreach`) where the class can, unless the manifest chose.
    """
    kind = optimizer_class(spec)
    options = {key: number(value) for key, value in spec.keywords.items() if key in ("foreach", "fused")}
    if not options and "foreach" in inspect.signature(kind).parameters:
        options = {"foreach": True}
    lists: list[dict[str, Any]] = [
        {key: value for key, value in group.keywords.items() if key not in ("foreach", "fused")}
        | {"params": [tensors[position] for position in group.positions]}
        for group in groups
    ]
    base = {key: value for key, value in lists[0].items() if key != "params"}
    return kind(lists, **base, **options)


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
    scalars: Mapping[str, Mapping[str, Scalar]],
) -> None:
    """Put back what `state_of` returned. Raises CheckpointError when these keywords need another state."""
    states: dict[int, dict[str, Any]] = {int(p): dict(values) for p, values in scalars.items()}
    for name, value in named.items():
        index, key = name.split(".", 1)
        states.setdefault(int(index), {})[key] = value
    needed = _needed_keys(optimizer, tensors)
    for position, state in states.items():
        missing = needed[position] ^ set(state)
        if missing:
            raise CheckpointError(
                f"checkpoint: the optimizer's state holds {sorted(state)}, {FIELD} as it stands needs "
                f"{sorted(needed[position])}: restore the keywords it was written with, or start afresh in "
                "another spec.checkpoint.path"
            )
        optimizer.state[tensors[position]] = state


def _needed_keys(optimizer: torch.optim.Optimizer, tensors: Sequence[torch.Tensor]) -> list[set[str]]:
    """Return what one step leaves in the state of each tensor, found out on miniatures."""
    minis = [torch.ones([1] * tensor.dim(), dtype=tensor.dtype) for tensor in tensors]
    position = {id(tensor): index for index, tensor in enumerate(tensors)}
    lists = [
        {key: value for key, value in group.items() if key != "params"}
        | {"params": [minis[position[id(tensor)]] for tensor in group["params"]]}
        for group in optimizer.param_groups
    ]
    kind: Callable[..., torch.optim.Optimizer] = type(optimizer)
    trial = kind(lists)
    _step(trial, minis)
    return [set(trial.state.get(mini, {})) for mini in minis]


def _trial_problems(spec: OptimizerSpec) -> list[Problem]:
    """Construct and step the optimizer once per group: torch checks values only then, and groups never."""
    problems = []
    for index, group in enumerate(assign_groups(spec, ())):
        failure = _failure(spec, [Group((0,), group.keywords)], [torch.ones(2, 2)])
        if failure:
            where = f"{FIELD}.groups.{index - 1}" if index else FIELD
            given = spec.groups[index - 1].overrides if index else {"lr": spec.lr, **spec.keywords}
            problems.append(Problem(where, repr(given), f"is not taken by {spec.name}: {failure}"))
            if not index:
                break
    return problems


def _failure(spec: OptimizerSpec, groups: Sequence[Group], tensors: Sequence[torch.Tensor]) -> str | None:
    try:
        _step(build(spec, groups, tensors), tensors)
    except Exception as error:  # torch raises whatever the class of its choice does
        return f"{error}" or type(error).__name__
    return None


def _step(optimizer: torch.optim.Optimizer, tensors: Sequence[torch.Tensor]) -> None:
    for tensor in tensors:
        tensor.grad = torch.ones_like(tensor)
    optimizer.step()


def _matches(patterns: Sequence[str], entry: TensorEntry) -> bool:
    return any(fnmatchcase(name, p) for p in patterns for name in (entry.name, *entry.aliases))


def _miniature(entry: TensorEntry) -> torch.Tensor:
    return torch.ones([1] * len(entry.shape))
