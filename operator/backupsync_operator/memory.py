"""The planner's memory as JSON for an API object: whole, yet small. Pure.

Fields that are at their default are left out, so that a job of 200 workers does not fill its object; and no
number that JSON cannot say (a loss of NaN) goes in.
"""

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec
from msgspec import NODEFAULT, Struct, structs

from backupsync.control import Desired, DesiredMember
from backupsync.lifecycle import bare
from backupsync.lifecycle.types import JobStatus


def compact(memory: JobStatus) -> dict[str, Any]:
    """Return `memory` as plain data, from which `restored` makes an equal one.

    But for the aggregator's last answer: its members' counts and its refusals are left out, and numbers that
    are not finite.
    """
    if memory.progress is not None:
        memory = structs.replace(memory, progress=bare(memory.progress))
    made: dict[str, Any] = finite(_plain(memory))
    return made


def restored(kept: Mapping[str, Any] | None) -> JobStatus:
    """Return the memory that `compact` made, also one with fields of a later operator, which are ignored.

    Raises msgspec.ValidationError for what no operator wrote.
    """
    if not kept:
        return JobStatus()
    known = dict(kept)
    if isinstance(known.get("desired"), Mapping):  # the one part that refuses fields it does not know
        desired = _known(known["desired"], Desired)
        desired["members"] = [_known(m, DesiredMember) for m in desired.get("members") or ()]
        known["desired"] = desired
    return msgspec.convert(known, type=JobStatus)


def finite(value: Any) -> Any:
    """Return plain data without numbers that JSON cannot say: None in a list, no such key in a mapping."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items() if not _endless(item)}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if _endless(value) else value


def _endless(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _known(given: Mapping[str, Any], kind: type[Struct]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key in kind.__struct_fields__}


def _plain(value: Any) -> Any:
    if isinstance(value, Struct):
        defaults = _defaults(type(value))
        fields = ((name, getattr(value, name)) for name in value.__struct_fields__)
        return {name: _plain(item) for name, item in fields if name not in defaults or item != defaults[name]}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


@cache
def _defaults(kind: type[Struct]) -> dict[str, Any]:
    found = {}
    for field in structs.fields(kind):
        if field.default is not NODEFAULT:
            found[field.name] = field.default
        elif field.default_factory is not NODEFAULT:
            found[field.name] = field.default_factory()
    return found
