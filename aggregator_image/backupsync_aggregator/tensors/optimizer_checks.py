"""What is wrong with `spec.training.optimizer`: its name, its keywords, its groups, the model."""

from collections.abc import Sequence
from typing import Any, Final

import torch

from backupsync.spec import OptimizerSpec, Problem
from backupsync.wire.messages import TensorEntry
from backupsync_aggregator.tensors.catalogue import keyword_problems, name_problem, number
from backupsync_aggregator.tensors.optimizer import (
    NOT_FUSED,
    Group,
    assign_groups,
    build,
    matches,
    optimizer_classes,
    trial_step,
)

FIELD: Final = "spec.training.optimizer"

_UNFIT: Final = {
    "LBFGS": "computes the loss again within a step (a closure), and the aggregator has no model to do so",
    "SparseAdam": "takes sparse gradients only, and gradients travel dense",
}
_UNFIT_KEYWORDS: Final = {
    "params": "is filled by BackupSync with the model's trainable parameters",
    "differentiable": "records the step for a second backward pass, and there is none here",
    "capturable": "is for CUDA graphs; the optimizer runs on the aggregator's CPU",
}
_UNFIT_IN_GROUP: Final = _UNFIT_KEYWORDS | {
    "foreach": f"is set for all groups: move it to {FIELD}",
    "fused": f"is set for all groups: move it to {FIELD}",
}


def optimizer_problems(spec: OptimizerSpec) -> list[Problem]:
    """Return everything wrong with `spec` that can be seen without a model."""
    classes = optimizer_classes()
    unknown = name_problem(f"{FIELD}.name", spec.name, classes, _UNFIT, "torch.optim")
    if unknown:
        return [unknown]
    kind = classes[spec.name]
    problems = keyword_problems(FIELD, kind, spec.keywords, _UNFIT_KEYWORDS)
    if spec.name in NOT_FUSED and (fused := spec.keywords.get("fused")):
        why = f"fused {spec.name} fails where a parameter gets its first gradient late; leave it out"
        problems.append(Problem(f"{FIELD}.fused", repr(fused), why))
    for index, group in enumerate(spec.groups):
        where = f"{FIELD}.groups.{index}"
        problems += keyword_problems(where, kind, group.overrides, _UNFIT_IN_GROUP)
    return problems or _value_problems(spec)


def group_problems(spec: OptimizerSpec, trainable: Sequence[TensorEntry]) -> list[Problem]:
    """Return everything wrong with `spec` (which has no `optimizer_problems`) for these tensors."""
    groups = assign_groups(spec, trainable)
    problems = []
    for index, (wanted, group) in enumerate(zip(spec.groups, groups[1:], strict=True)):
        if not group.positions:
            why = _unmatched(wanted.match, trainable)
            problems.append(Problem(f"{FIELD}.groups.{index}.match", repr(wanted.match), why))
    for group in groups:
        for entry in {len(trainable[p].shape): trainable[p] for p in group.positions}.values():
            failure = _failure(spec, group.keywords, torch.ones([1] * len(entry.shape)))
            if failure:
                why = f"cannot train parameter {entry.name} of shape {list(entry.shape)}: {failure}"
                problems.append(Problem(f"{FIELD}.name", repr(spec.name), why))
    return problems


def _value_problems(spec: OptimizerSpec) -> list[Problem]:
    """Construct and step the optimizer once per group: torch looks at a group's values only then."""
    base, *groups = assign_groups(spec, ())
    problem = _value_problem(spec, FIELD, base.keywords, spec.keywords)
    if problem:
        return [problem]
    found = (
        _value_problem(spec, f"{FIELD}.groups.{index}", group.keywords, spec.groups[index].overrides)
        for index, group in enumerate(groups)
    )
    return [problem for problem in found if problem]


def _value_problem(
    spec: OptimizerSpec, field: str, keywords: dict[str, Any], given: dict[str, Any]
) -> Problem | None:
    """Say which of the values `given` (among `keywords`) torch does not take, or that it is their mixture."""
    failure = _failure(spec, keywords, torch.ones(2, 2))
    if not failure:
        return None
    for key, value in given.items():
        alone = _failure(spec, {"lr": spec.lr, key: number(value)}, torch.ones(2, 2))
        if alone:
            return Problem(f"{field}.{key}", repr(value), f"is not taken by {spec.name}: {alone}")
    return Problem(field, repr(given), f"is not taken by {spec.name}: {failure}")


def _failure(spec: OptimizerSpec, keywords: dict[str, Any], tensor: torch.Tensor) -> str | None:
    """Construct the optimizer over one tensor and step it; return why that fails."""
    try:
        trial_step(build(spec, [Group((0,), keywords)], [tensor]))
    except Exception as error:  # torch raises whatever the class of its choice does
        return f"{error}" or type(error).__name__
    return None


def _unmatched(patterns: Sequence[str], trainable: Sequence[TensorEntry]) -> str:
    if any(matches(patterns, entry) for entry in trainable):
        return "matches only parameters that an earlier group takes; the first match wins"
    names = ", ".join(entry.name for entry in trainable[:8]) + (", ..." if len(trainable) > 8 else "")
    return f"matches no trainable parameter; the model has {names}"
