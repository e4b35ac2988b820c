"""Reading a manifest: YAML in, a checked `BackupSyncJob` or every problem at once out."""

import difflib
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from backupsync.errors import BackupSyncError
from backupsync.spec.job import BackupSyncJob


class Problem(NamedTuple):
    """One thing wrong with a manifest."""

    field: str
    """Path of the field, such as `spec.aggregation.workers`."""
    value: str
    """The offending value, shortened; empty when the field is missing."""
    remedy: str
    """What is wrong with it, and what would be valid."""

    def __str__(self) -> str:
        value = f" = {self.value}" if self.value else ""
        return f"{self.field}{value}: {self.remedy}"


class ManifestError(BackupSyncError):
    """A manifest that cannot be run; `problems` names every reason."""

    def __init__(self, source: str, problems: list[Problem]) -> None:
        self.source = source
        self.problems = problems
        super().__init__(f"{source}: " + "; ".join(map(str, problems)))


def load_manifest(path: Path) -> BackupSyncJob:
    """Read the manifest at `path`. Raises ManifestError with every problem in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(str(path), [Problem("file", str(path), f"cannot be read: {error}")]) from error
    return parse_manifest(text, str(path))


def parse_manifest(text: str, source: str = "manifest") -> BackupSyncJob:
    """Check the YAML `text`; `source` names it in errors. Raises ManifestError with every problem in it."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ManifestError(source, [Problem("yaml", "", f"is malformed: {error}")]) from error
    if not isinstance(document, dict):
        found = type(document).__name__
        raise ManifestError(
            source, [Problem("manifest", found, "must be a mapping with apiVersion and kind")]
        )
    try:
        return BackupSyncJob.model_validate(document)
    except ValidationError as error:
        raise ManifestError(source, [_problem(detail) for detail in error.errors()]) from error


def _problem(detail: ErrorDetails) -> Problem:
    path = ".".join(str(part) for part in detail["loc"]) or "manifest"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        return Problem(path, _short(detail["input"]), _unknown(detail["loc"]))
    if detail["type"] == "missing":
        return Problem(path, "", "is required")
    return Problem(path, _short(detail["input"]), message)


def _unknown(location: tuple[int | str, ...]) -> str:
    fields = _fields_at(location[:-1])
    close = difflib.get_close_matches(str(location[-1]), fields, n=1)
    hint = f"did you mean {close[0]}?" if close else f"valid here: {', '.join(fields)}"
    return f"is not a field; {hint}"


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = BackupSyncJob
    for part in location:
        field = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        nested = _model_of(field) if field else None
        if nested is not None:
            model = nested
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_of(field: FieldInfo) -> type[BaseModel] | None:
    candidates: list[Any] = [field.annotation]
    while candidates:
        candidate = candidates.pop()
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
        candidates.extend(getattr(candidate, "__args__", ()))
    return None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
