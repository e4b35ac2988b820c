"""The optimizer: a class of `torch.optim` by name, with parameter groups by name pattern.

It runs in the aggregator alone, so there is one optimizer state wherever workers come and go.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

import torch

from backupsync.spec import OptimizerSpec
from backupsync.wire.messages import TensorEntry
from backupsync_aggregator.tensors.catalogue import number, numbers, subclasses

IMPLEMENTATION: Final = ("foreach", "fused")
"""Keywords that choose how a step is computed, for the whole optimizer."""
NOT_FUSED: Final = frozenset({"SGD"})
"""Classes whose fused step fails on a parameter that gets its first gradient later than another."""


@dataclass(frozen=True, slots=True)
class Group:
    """One parameter group: positions among the trainable tensors, and its own keywords, `lr` included."""

    positions: tuple[int, ...]
    keywords: dict[str, Any]


def optimizer_classes() -> dict[str, type[torch.optim.Optimizer]]:
    """Return every optimizer class of torch by name, those that cannot run here too."""
    return subclasses(torch.optim, torch.optim.Optimizer)


def assign_groups(spec: OptimizerSpec, trainable: Sequence[TensorEntry]) -> list[Group]:
    """Return the base group, then one for each of `spec.groups` (maybe empty); the first match wins.

    A pattern is matched against the tensor's name and every alias of it (tied weights).
    """
    members: list[list[int]] = [[] for _ in range(len(spec.groups) + 1)]
    for position, entry in enumerate(trainable):
        hits = (i for i, group in enumerate(spec.groups, 1) if matches(group.match, entry))
        members[next(hits, 0)].append(position)
    base = numbers({"lr": spec.lr, **spec.keywords})
    keywords = [base, *(base | numbers(group.overrides) for group in spec.groups)]
    return [Group(tuple(m), k) for m, k in zip(members, keywords, strict=True)]


def matches(patterns: Sequence[str], entry: TensorEntry) -> bool:
    """Whether any shell pattern fits the tensor's name, or an alias of it."""
    return any(fnmatchcase(name, p) for p in patterns for name in (entry.name, *entry.aliases))


def build(
    spec: OptimizerSpec, groups: Sequence[Group], tensors: Sequence[torch.Tensor]
) -> torch.optim.Optimizer:
    """Return the optimizer over `tensors` (by position), with every group, empty ones too, in order.

    Unless the manifest chose, a step is one pass over the memory (`fused`) where the class can, else it runs
    over lists of tensors at once (`foreach`).
    """
    kind = optimizer_classes()[spec.name]
    options = {key: number(value) for key, value in spec.keywords.items() if key in IMPLEMENTATION}
    if not options:
        options = _fastest(kind)
    lists: list[dict[str, Any]] = [
        {key: value for key, value in group.keywords.items() if key not in IMPLEMENTATION}
        | {"params": [tensors[position] for position in group.positions]}
        for group in groups
    ]
    base = {key: value for key, value in lists[0].items() if key != "params"}
    return kind(lists, **base, **options)


def _fastest(kind: type[torch.optim.Optimizer]) -> dict[str, Any]:
    known = inspect.signature(kind).parameters
    if "fused" in known and kind.__name__ not in NOT_FUSED:
        return {"fused": True}
    return {"foreach": True} if "foreach" in known else {}


def trial_step(optimizer: torch.optim.Optimizer) -> None:
    """Step on gradients of ones: torch checks many values, and makes its state, only then."""
    for group in optimizer.param_groups:
        for tensor in group["params"]:
            tensor.grad = torch.ones_like(tensor)
    optimizer.step()
