"""Events of a job: what happened and why, appended to events.jsonl and shown to whoever watches."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

_ENCODER = msgspec.json.Encoder()


class Event(Struct, frozen=True, kw_only=True):
    """One thing that happened."""

    at: float
    """Unix time."""
    kind: Literal["Normal", "Warning"] = "Normal"
    reason: str
    """CamelCase word."""
    message: str
    detail: str = ""
    """Last words of a process, such as the user's traceback."""


_DECODER = msgspec.json.Decoder(Event)


def append_event(path: Path, event: Event) -> None:
    """Append one event."""
    with path.open("ab") as file:
        file.write(_ENCODER.encode(event) + b"\n")


def read_events(path: Path) -> Iterator[Event]:
    """Yield the events in order; a torn last line is left out."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return
    for line in lines:
        if line.endswith(b"\n"):
            yield _DECODER.decode(line)


def event(kind: Literal["Normal", "Warning"], reason: str, message: str, detail: str = "") -> Event:
    """Return an event of this moment."""
    return Event(at=time.time(), kind=kind, reason=reason, message=message, detail=detail)
