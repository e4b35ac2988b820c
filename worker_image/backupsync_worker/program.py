"""The user's program: what they write, and how it is found, checked and made."""

import difflib
import importlib
import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import torch
from torch import Tensor, nn

from backupsync.errors import ProgramError
from backupsync.spec.job import ProgramSpec
from backupsync_worker.tensors.seeding import seed_everything

_PASS: Final = (ProgramError, MemoryError, torch.OutOfMemoryError)
"""Said well enough already, or no fault of the program's."""
_REQUIRED: Final = ("model", "dataset", "loss")


class Program(ABC):
    """What to train: subclass it, and name it in the manifest as `spec.program.entrypoint`.

    `spec.program.args` are the keyword arguments of the constructor. Two methods may be added:
    `evaluate(self, model) -> dict[str, float]`, run on a copy of the (averaged) parameters, and
    `collate(self, examples: list) -> batch` in place of torch's `default_collate`.
    """

    @abstractmethod
    def model(self) -> nn.Module:
        """Return the model, freshly initialized; every random number in it is seeded by the job."""

    @abstractmethod
    def dataset(self) -> Any:
        """Return the training data: a torch Dataset, a list or tuple of examples, or an IterableDataset."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the mean loss over the batch, as one number with a gradient."""


def load_program(spec: ProgramSpec, directory: Path | str) -> Program:
    """Import the class that `spec.program.entrypoint` names, from `directory` first, and make one of it.

    A class need not subclass `Program`, if it has its methods. Raises ProgramError, which names the field,
    the value and the remedy; what the user's own code raised is chained to it with its traceback.
    """
    if spec.entrypoint is None:
        raise ProgramError(
            f"spec.program.entrypoint: is not set; {spec.script!r} is a script with its own loop"
        )
    module_name, _, class_name = spec.entrypoint.partition(":")
    found = str(Path(directory).resolve())
    if sys.path[:1] != [found]:
        sys.path.insert(0, found)
    kind = _find_class(_import(spec.entrypoint, module_name, Path(found)), class_name, spec.entrypoint)
    missing = [name for name in _REQUIRED if not callable(getattr(kind, name, None))]
    missing += sorted(set(getattr(kind, "__abstractmethods__", ())) - set(missing))
    if missing:
        raise ProgramError(
            f"spec.program.entrypoint = {spec.entrypoint!r}: {class_name} lacks the method(s) "
            f"{', '.join(missing)}; a program has model(), dataset() and loss(model, batch)"
        )
    _check_arguments(kind, spec)
    try:
        program: Program = kind(**spec.args)
    except _PASS:
        raise
    except Exception as error:
        raise ProgramError(
            f"spec.program.args = {spec.args!r}: {class_name}(...) raised {type(error).__name__}: {error}"
        ) from error
    return program


def make_model(program: Program, seed: int) -> nn.Module:
    """Return the program's model, initialized from the job's seed. Raises ProgramError if it is none."""
    seed_everything(seed, "init")
    model: Any = program.model()
    if not isinstance(model, nn.Module):
        raise ProgramError(
            f"{type(program).__name__}.model(): returned a {type(model).__name__}, must return a "
            "torch.nn.Module"
        )
    return model


def make_dataset(program: Program) -> Any:
    """Return the program's training data. Raises ProgramError if it returns none."""
    dataset = program.dataset()
    if dataset is None:
        raise ProgramError(
            f"{type(program).__name__}.dataset(): returned None; return the training data (a torch Dataset, "
            "a list of examples, or an IterableDataset)"
        )
    return dataset


def _import(entrypoint: str, name: str, directory: Path) -> ModuleType:
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except _PASS:
        raise
    except ModuleNotFoundError as error:
        if error.name is None or not (name + ".").startswith(error.name + "."):
            raise _import_failed(entrypoint, name, error) from error
        modules = sorted(p.stem for p in directory.glob("*.py"))
        raise ProgramError(
            f"spec.program.entrypoint = {entrypoint!r}: there is no module {error.name!r} in {directory} nor "
            f"on the Python path; {_suggest(name, modules, 'modules there')}"
        ) from None
    except Exception as error:
        raise _import_failed(entrypoint, name, error) from error


def _import_failed(entrypoint: str, name: str, error: Exception) -> ProgramError:
    return ProgramError(
        f"spec.program.entrypoint = {entrypoint!r}: importing {name} raised {type(error).__name__}: {error}; "
        "correct it in the program, or install what it needs"
    )


def _find_class(module: ModuleType, name: str, entrypoint: str) -> type[Any]:
    kind = getattr(module, name, None)
    if isinstance(kind, type):
        return kind
    problem = "has no class" if kind is None else f"has a {type(kind).__name__}, not a class, named"
    classes = [n for n, c in vars(module).items() if isinstance(c, type) and c.__module__ == module.__name__]
    raise ProgramError(
        f"spec.program.entrypoint = {entrypoint!r}: {module.__name__} {problem} {name}; "
        f"{_suggest(name, classes, 'classes there')}"
    )


def _check_arguments(kind: type[Any], spec: ProgramSpec) -> None:
    signature = inspect.signature(kind)
    try:
        signature.bind(**spec.args)
    except TypeError as error:
        known = [p.name for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        unknown = next((name for name in spec.args if name not in known), "")
        raise ProgramError(
            f"spec.program.args = {spec.args!r}: {kind.__name__}: {error}; "
            f"{_suggest(unknown, known, 'arguments of its constructor')}"
        ) from None


def _suggest(name: str, candidates: Iterable[str], what: str) -> str:
    candidates = list(candidates)
    close = difflib.get_close_matches(name, candidates, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"{what}: {', '.join(candidates) or 'none'}"
