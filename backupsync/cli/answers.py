"""How a command answers: text for people, JSON for programs."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec
import typer

from backupsync.local.events import Event


def print_json(value: Any) -> None:
    """Print plain data as indented JSON."""
    typer.echo(json.dumps(value, indent=2))


def print_structures(value: Any) -> None:
    """Print typed structures as indented JSON: camelCase, times by RFC 3339."""
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_line(value: Any) -> None:
    """Print a typed structure as one line of JSON."""
    typer.echo(msgspec.json.encode(value).decode())


def print_reasons(job: str, lines: Iterable[str], *, as_json: bool) -> None:
    """Print why a job stands as it does."""
    if as_json:
        print_json({"job": job, "reasons": list(lines)})
        return
    for line in lines:
        typer.echo(line)


def local_event(event: Event) -> dict[str, Any]:
    """Return an event of a local job under the names that events of a cluster have."""
    moment = datetime.fromtimestamp(event.at, UTC).isoformat().replace("+00:00", "Z")
    return {
        "time": moment,
        "kind": event.kind,
        "reason": event.reason,
        "message": event.message,
        "detail": event.detail,
    }
