"""Classes of `torch.optim` by name: what a manifest may name, which keywords fit, and why others cannot.

Everything here answers with `Problem`s (field, value, remedy), so that a manifest hears of every fault.
"""

import difflib
import inspect
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from backupsync.spec.manifest import Problem

# YAML 1.1 reads 1e-4 (no dot) as text; nobody means the text.
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def number(value: Any) -> Any:
    """Return `value` with every text that is a number, such as YAML's `1e-4`, turned into that number."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    if isinstance(value, list):
        return [number(item) for item in value]
    return value


def numbers(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Apply `number` to every keyword."""
    return {key: number(value) for key, value in keywords.items()}


def subclasses(module: object, base: type) -> dict[str, type]:
    """Return the public proper subclasses of `base` that `module` exports, by name."""
    found = {
        name: kind
        for name, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, base) and kind is not base
    }
    return {name: found[name] for name in sorted(found) if not name.startswith("_")}


def name_problem(
    field: str, name: str, valid: Iterable[str], unfit: Mapping[str, str], source: str
) -> Problem | None:
    """Say what is wrong with the class `name`; `unfit` maps classes of `source` to what bars them."""
    valid = [each for each in valid if each not in unfit]
    if name in valid:
        return None
    if name in unfit:
        return Problem(field, repr(name), f"{unfit[name]}; valid: {', '.join(valid)}")
    hint = suggestion(name, valid)
    return Problem(field, repr(name), f"is no class of {source} that can run here; {hint}")


def keyword_problems(
    field: str, kind: type, keywords: Mapping[str, Any], unfit: Mapping[str, str]
) -> list[Problem]:
    """Say which `keywords` the constructor of `kind` does not take, or must not be given here."""
    valid = [name for name in inspect.signature(kind).parameters if name not in unfit]
    problems: list[Problem] = []
    for name, value in keywords.items():
        where = f"{field}.{name}"
        if name in unfit:
            problems.append(Problem(where, repr(value), unfit[name]))
        elif name not in valid:
            hint = suggestion(name, valid)
            problems.append(Problem(where, repr(value), f"is no keyword of {kind.__name__}; {hint}"))
    return problems


def missing_problems(
    field: str, kind: type, keywords: Mapping[str, Any], unfit: Mapping[str, str]
) -> list[Problem]:
    """Say which keywords the constructor of `kind` cannot do without."""
    return [
        Problem(f"{field}.{name}", "", f"is required by {kind.__name__}")
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.default is inspect.Parameter.empty and name not in keywords and name not in unfit
    ]


def suggestion(word: str, valid: Iterable[str]) -> str:
    """Return the closest valid word as a question, or all of them; letter case does not count."""
    by_lower = {each.lower(): each for each in valid}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f"did you mean {by_lower[close[0]]}?" if close else f"valid: {', '.join(by_lower.values())}"


def is_rate(value: object) -> bool:
    """Whether `value` can be a learning rate."""
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0
