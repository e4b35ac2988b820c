"""The learning rate: schedule × warm-up × scaling, all by applied examples, so that N and b may change.

The schedule is a class of `torch.optim.lr_scheduler` on a *shadow* optimizer with the groups of the real one.
Its step is one reference iteration: referenceWorkers × batchSize applied examples. Its state is a
function of the steps alone, so a checkpoint needs none of it. Rates follow the k accepted gradients and never
N+b (Chen et al., appendix A.2: 0.045·N).
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.optim import lr_scheduler

from backupsync.spec import OptimizerSpec, Problem, Scaling, ScheduleSpec, TrainingSpec
from backupsync_aggregator.tensors.catalogue import (
    is_rate,
    keyword_problems,
    missing_problems,
    name_problem,
    numbers,
    subclasses,
)
from backupsync_aggregator.tensors.optimizer import Group, assign_groups, build

FIELD: Final = "spec.training.schedule"

_FUNCTION: Final = "needs a Python function, which a manifest cannot hold"
_NESTED: Final = (
    "combines scheduler objects, which a manifest cannot hold; use one schedule, and training.warmup"
)
_UNFIT: Final = {
    "ReduceLROnPlateau": "follows a validation loss; here the rate is a function of applied examples alone",
    "LambdaLR": _FUNCTION,
    "MultiplicativeLR": _FUNCTION,
    "SequentialLR": _NESTED,
    "ChainedScheduler": _NESTED,
}
_UNFIT_KEYWORDS: Final = {
    "optimizer": "is filled by BackupSync",
    "last_epoch": "is filled by BackupSync: resuming is exact by applied examples",
    "verbose": "prints nothing useful here; GET /status and the trace carry the rate",
    "scale_fn": _FUNCTION,
}
# Further keys of a group that CyclicLR and OneCycleLR move along with the rate.
_CYCLED: Final = ("momentum", "betas")
_TRIAL_STEPS: Final = 3


@dataclass(frozen=True, slots=True)
class Rates:
    """What the optimizer's groups are set to for one update, in order of the groups, base group first."""

    groups: tuple[dict[str, Any], ...]

    @property
    def base(self) -> float:
        """Learning rate of the parameters that no pattern matches."""
        return float(self.groups[0]["lr"])


class LearningRate:
    """Rates for any number of applied examples; cheap when asked in rising order."""

    def __init__(self, training: TrainingSpec, reference_workers: int) -> None:
        self._training = training
        self._reference = reference_workers
        self._schedule = _Schedule(training.optimizer, training.schedule)

    def at(self, examples: int, accepted: int) -> Rates:
        """Return the rates after `examples` applied ones, for a mean over `accepted` (k) gradients."""
        self._schedule.advance(examples // (self._reference * self._training.batch_size))
        factor = self._warmup(examples) * self._scaling(accepted)
        return Rates(tuple(group | {"lr": group["lr"] * factor} for group in self._schedule.groups()))

    def _warmup(self, examples: int) -> float:
        warmup = self._training.warmup
        if warmup is None:
            return 1.0
        return warmup.start_factor + (1 - warmup.start_factor) * min(1.0, examples / warmup.examples)

    def _scaling(self, accepted: int) -> float:
        match self._training.scaling:
            case Scaling.NONE:
                return 1.0
            case Scaling.LINEAR:
                return accepted / self._reference
            case Scaling.SQRT:
                return math.sqrt(accepted / self._reference)


class _Schedule:
    """A scheduler on its shadow optimizer, stepped one by one so that chained forms give the same bits."""

    def __init__(self, optimizer: OptimizerSpec, schedule: ScheduleSpec | None) -> None:
        self._specs = (optimizer, schedule)
        self._reset()

    def _reset(self) -> None:
        optimizer, schedule = self._specs
        self._steps = 0
        self._shadow = _shadow(assign_groups(optimizer, ()), optimizer)
        self._scheduler = _scheduler(schedule, self._shadow) if schedule else None

    def advance(self, steps: int) -> None:
        """Go to `steps`. A schedule of bounded length (OneCycleLR) keeps its last rate beyond its end."""
        if self._scheduler is None:
            return
        bound = getattr(self._scheduler, "total_steps", None)
        steps = min(steps, int(bound) - 1) if bound else steps
        if steps < self._steps:
            self._reset()
        while self._steps < steps:
            self._scheduler.step()
            self._steps += 1

    def groups(self) -> list[dict[str, Any]]:
        """Return `lr`, and what else the schedule moves, of every group."""
        keys = ("lr", *_CYCLED) if getattr(self._scheduler, "cycle_momentum", False) else ("lr",)
        return [{k: g[k] for k in keys if k in g} for g in self._shadow.param_groups]


def schedule_problems(optimizer: OptimizerSpec, schedule: ScheduleSpec | None) -> list[Problem]:
    """Return everything wrong with the schedule of an optimizer that itself has no problems."""
    if schedule is None:
        return []
    classes = subclasses(lr_scheduler, lr_scheduler.LRScheduler)
    classes.setdefault("ReduceLROnPlateau", lr_scheduler.ReduceLROnPlateau)
    unknown = name_problem(f"{FIELD}.name", schedule.name, classes, _UNFIT, "torch.optim.lr_scheduler")
    if unknown:
        return [unknown]
    kind = classes[schedule.name]
    problems = keyword_problems(FIELD, kind, schedule.keywords, _UNFIT_KEYWORDS)
    problems += missing_problems(FIELD, kind, schedule.keywords, _UNFIT_KEYWORDS)
    failure = None if problems else _failure(optimizer, schedule)
    if failure:
        problems.append(
            Problem(FIELD, repr(schedule.keywords), f"is not taken by {schedule.name}: {failure}")
        )
    return problems


def _failure(optimizer: OptimizerSpec, schedule: ScheduleSpec) -> str | None:
    try:
        trial = _Schedule(optimizer, schedule)
        for step in range(_TRIAL_STEPS):
            trial.advance(step)
            rates = [group["lr"] for group in trial.groups()]
            if not all(map(is_rate, rates)):
                return f"the learning rate after {step} steps would be {rates[0]}"
    except Exception as error:  # torch raises whatever the class of its choice does
        return f"{error}" or type(error).__name__
    return None


def _shadow(groups: Sequence[Group], spec: OptimizerSpec) -> torch.optim.Optimizer:
    """Return an optimizer with the same groups, over one dummy each."""
    dummies = [torch.zeros(1, 1) for _ in groups]
    alone = [Group((index,), group.keywords) for index, group in enumerate(groups)]
    return build(spec, alone, dummies)


def _scheduler(schedule: ScheduleSpec, shadow: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    kind = subclasses(lr_scheduler, lr_scheduler.LRScheduler)[schedule.name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler: lr_scheduler.LRScheduler = kind(shadow, **numbers(schedule.keywords))
        shadow.step()  # does nothing, for there are no gradients; the scheduler checks that it was called
    return scheduler
