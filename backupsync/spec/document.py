"""Reading a user's YAML into a model: every problem at once, each with field, value and remedy.

Manifest and injection profile are read here. YAML is taken in its JSON subset, and strictly: what a cluster's
API server would refuse (`workers: "4"`, `suspend: 1`) is refused here too.
"""

import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from backupsync.errors import BackupSyncError
from backupsync.spec.rules import broken_rules
from backupsync.spec.yaml_subset import YamlProblem, load_yaml

M = TypeVar("M", bound=BaseModel)
Location = tuple[int | str, ...]


_KINDS: Final = {
    "a valid array": "a list",
    "a valid boolean": "true or false",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid string": "a string",
}
"""Pydantic's words, and those of a reader of YAML."""


class Problem(NamedTuple):
    """One thing wrong with a document."""

    field: str
    """Path of the field, such as `spec.aggregation.workers`."""
    value: str
    """The offending value, shortened; empty when the field is missing."""
    remedy: str
    """What is wrong with it, and what would be valid."""

    def __str__(self) -> str:
        value = f" = {self.value}" if self.value else ""
        return f"{self.field}{value}: {self.remedy}"


class DocumentError(BackupSyncError):
    """A document that cannot be used; `problems` names every reason."""

    def __init__(self, source: str, problems: list[Problem]) -> None:
        self.source = source
        self.problems = problems
        super().__init__(f"{source}: " + "; ".join(map(str, problems)))


class _Place(NamedTuple):
    """Where in the models an error lies."""

    path: Location
    owner: type[BaseModel]
    field: FieldInfo | None


def read_text(path: Path, error: type[DocumentError]) -> str:
    """Return the text of the file at `path`. Raises `error`."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        raise error(str(path), [Problem("file", str(path), f"cannot be read: {cause}")]) from cause


def parse(text: str, source: str, model: type[M], error: type[DocumentError]) -> M:
    """Check the YAML `text` against `model`; `source` names it. Raises `error` with every problem in it."""
    try:
        document = load_yaml(text, source)
    except YamlProblem as cause:
        raise error(source, [Problem("yaml", "", str(cause))]) from cause
    return check(document, source, model, error)


def check(document: Any, source: str, model: type[M], error: type[DocumentError]) -> M:
    """Check plain data against `model`; `source` names it. Raises `error` with every problem in it."""
    if not isinstance(document, dict):
        required = [f.alias or n for n, f in model.model_fields.items() if f.is_required()]
        remedy = f"must be a mapping with {' and '.join(required or list(_names(model)))}"
        raise error(source, [Problem("document", _short(document), remedy)])
    problems = list(_foreign(document, ()))
    if problems:
        raise error(source, problems)
    try:
        return model.model_validate_json(json.dumps(document), strict=True)
    except ValidationError as cause:
        found = [_problem(detail, model) for detail in cause.errors()]
        rules = (Problem(_path(at), "", message) for at, message in broken_rules(model, document))
        raise error(source, [*found, *(rule for rule in rules if rule not in found)]) from cause


def _foreign(value: Any, at: Location) -> Iterator[Problem]:
    """What YAML can say and JSON cannot: it would not survive the way to a worker."""
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, str):
                yield from _foreign(item, (*at, key))
            else:
                yield Problem(_path((*at, str(key))), "", f"the key {key!r} must be a string: quote it")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _foreign(item, (*at, index))
    elif isinstance(value, float) and not -float("inf") < value < float("inf"):
        yield Problem(_path(at), repr(value), "must be a finite number")
    elif value is not None and not isinstance(value, str | int | float):
        kind = type(value).__name__
        yield Problem(_path(at), _short(value), f"is a YAML {kind}: quote it to make it a string")


def _problem(detail: ErrorDetails, model: type[BaseModel]) -> Problem:
    location, owner, field = _walk(detail["loc"], model)
    path = _path(location)
    described = (field.description or "").split("\n", 1)[0] if field else ""
    match detail["type"]:
        case "extra_forbidden":
            return Problem(path, _short(detail["input"]), _unknown(str(location[-1]), owner))
        case "union_tag_invalid" | "union_tag_not_found":
            return _wrong_tag(path, detail)
        case "missing":
            return Problem(path, "", f"is required: {described}" if described else "is required")
        case "string_pattern_mismatch":
            return Problem(path, _short(detail["input"]), f"does not fit; {described}")
        case "model_type" | "model_attributes_type" | "dict_type":
            return Problem(path, _short(detail["input"]), "must be a mapping")
        case "float_type" | "int_type" | "bool_type" if isinstance(detail["input"], str):
            return Problem(path, _short(detail["input"]), remedy_of(detail["msg"]) + _quoted(detail["input"]))
        case _:
            return Problem(path, _short(detail["input"]), remedy_of(detail["msg"]))


def _wrong_tag(path: str, detail: ErrorDetails) -> Problem:
    said = detail.get("ctx", {})
    field = f"{path}.{str(said.get('discriminator', 'kind')).strip(chr(39))}"
    if "tag" not in said:
        return Problem(field, "", "is required")
    tags = [tag.strip("' ") for tag in said["expected_tags"].split(",")]
    return Problem(field, repr(said["tag"]), f"is no kind; {_hint(str(said['tag']), tags)}")


def remedy_of(message: str) -> str:
    """Return what pydantic says, as a remedy in our words."""
    message = message.removeprefix("Value error, ").replace("Input should be", "must be")
    for theirs, ours in _KINDS.items():
        message = message.replace(theirs, ours)
    return message.replace("String should have", "must have").replace("List should have", "must have")


def _quoted(given: str) -> str:
    """The remedy for a number, or a true, that somebody put in quotes."""
    try:
        meant = json.loads(given.lower())
    except ValueError:
        return ""
    return "; take the quotes away" if isinstance(meant, int | float) else ""


def _unknown(name: str, model: type[BaseModel]) -> str:
    return f"is not a field; {_hint(name, list(_names(model)))}"


def _hint(name: str, valid: list[str]) -> str:
    close = difflib.get_close_matches(name.lower(), [v.lower() for v in valid], n=1)
    hint = next((f"did you mean {v}?" for v in valid if close and v.lower() == close[0]), None)
    return hint or "valid here: " + ", ".join(valid)


def _names(model: type[BaseModel]) -> Iterator[str]:
    return (field.alias or name for name, field in model.model_fields.items())


def _walk(location: Location, model: type[BaseModel]) -> _Place:
    """Follow an error's location through the models: drops the tags of unions, which no user wrote."""
    path: list[int | str] = []
    field: FieldInfo | None = None
    inside: list[type[BaseModel]] = [model]  # what the value reached so far may be
    owner = model
    for part in location:
        tagged = [m for m in inside if part in _tags(m)] if len(inside) > 1 else []
        if tagged:
            inside = tagged
            continue
        path.append(part)
        if isinstance(part, str) and inside:
            owner = inside[0]
            field = next((f for n, f in owner.model_fields.items() if part in (n, f.alias)), None)
            inside = _models_in(field.annotation) if field else []
    return _Place(tuple(path), owner, field)


def _tags(model: type[BaseModel]) -> tuple[object, ...]:
    kind = model.model_fields.get("kind")
    return tuple(getattr(kind.annotation, "__args__", ())) if kind else ()


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for part in getattr(annotation, "__args__", ()) for m in _models_in(part)]


def _path(location: Location) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".") or "document"


def _short(value: object) -> str:
    if isinstance(value, Mapping | list):
        return ""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
