"""Evaluation of a copy of the model, while the model itself stays as it is for the next ticket."""

import copy
import logging
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from backupsync.errors import ProgramError
from backupsync.spec import JobSpec
from backupsync.wire.frames import Buffer
from backupsync.wire.messages import Evaluated
from backupsync_worker.tensors.flat_model import FlatModel
from backupsync_worker.tensors.seeding import preserved, seed_everything
from backupsync_worker.tracebacks import trimmed

MAX_METRICS = 64
_MAX_NAME = 512
_MAX_ERROR = 4000

_log = logging.getLogger(__name__)


class Interrupted(BaseException):  # a program's `except Exception` must not swallow it
    """The evaluation is to end now."""


class Evaluator:
    """Runs the program's `evaluate` on a copy of the model, in eval mode and without gradients."""

    def __init__(
        self, model: nn.Module, evaluate: Callable[[nn.Module], Mapping[str, Any]], spec: JobSpec
    ) -> None:
        self._evaluate = evaluate
        self._seed = spec.training.seed
        try:
            # Now, before any forward pass: modules may keep activations, which cannot be copied.
            self._copy = copy.deepcopy(model)
        except Exception as error:
            raise ProgramError(
                f"model {type(model).__name__}: cannot be copied for evaluation (copy.deepcopy: {error}); "
                "keep what cannot be copied out of the module"
            ) from error
        wire = spec.aggregation.wire
        self._flat = FlatModel(self._copy, wire.dtype, wire.chunk_bytes)
        self._check: Callable[[], None] = lambda: None
        for module in self._copy.modules():
            module.register_forward_pre_hook(lambda *_: self._check())

    def run(
        self, iteration: int, moving: Buffer, frozen: Buffer | None, check: Callable[[], None]
    ) -> Evaluated:
        """Evaluate the parameters `moving`; what goes wrong is part of the answer, never raised.

        `check` is called before every submodule's forward and may raise Interrupted.
        """
        began = time.monotonic()
        self._check = check
        try:
            if frozen is not None:
                self._flat.load("frozen", frozen)
            self._flat.load("moving", moving)
            with preserved(), torch.no_grad():
                seed_everything(self._seed, "evaluate", iteration)
                self._copy.eval()
                metrics = numbers("evaluate()", self._evaluate(self._copy))
        except Interrupted:
            return Evaluated(iteration, seconds=time.monotonic() - began, error="aborted")
        except MemoryError:
            raise
        except ProgramError as error:
            _log.warning("evaluation of iteration %d: %s", iteration, error)
            return Evaluated(iteration, seconds=time.monotonic() - began, error=str(error)[:_MAX_ERROR])
        except Exception as error:
            _log.warning("evaluation of iteration %d failed", iteration, exc_info=trimmed(error))
            text = "".join(traceback.format_exception(error))[-_MAX_ERROR:]
            return Evaluated(iteration, seconds=time.monotonic() - began, error=text)
        return Evaluated(iteration, metrics, time.monotonic() - began)


def numbers(source: str, values: object) -> dict[str, float]:
    """Check what the program reports: names to numbers, at most 64. Raises ProgramError."""
    if not isinstance(values, Mapping):
        raise ProgramError(f"{source}: gave a {type(values).__name__}, must give a dict of names to numbers")
    if len(values) > MAX_METRICS:
        raise ProgramError(f"{source}: gave {len(values)} values, at most {MAX_METRICS} travel")
    return {_name(source, name): _number(source, name, value) for name, value in values.items()}


def _name(source: str, name: object) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME:
        raise ProgramError(f"{source}: {name!r} is no name; use a string of 1 to {_MAX_NAME} characters")
    return name


def _number(source: str, name: str, value: Any) -> float:
    """Accept what is one real number: Python's, NumPy's or a tensor with one element."""
    if not isinstance(value, str | bytes):
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            pass
    kind = f"tensor of shape {list(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
    raise ProgramError(f"{source}: {name} is a {kind}, must be one number")
