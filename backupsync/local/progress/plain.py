"""Progress where no terminal is: a line every two seconds, and one for every event that matters."""

import sys
import time
from typing import IO

from backupsync.control import AggregatorStatus
from backupsync.local.events import Event
from backupsync.local.observer import Snapshot
from backupsync.local.progress.figures import clock, count, figures, number
from backupsync.local.progress.once import Once
from backupsync.local.progress.view import phase_of

EVERY_SECONDS = 2.0
_ROUTINE = frozenset({"Started", "Exited"})


class PlainProgress:
    """Writes lines."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._said_at = 0.0
        self._line = ""
        self._phase = ""
        self._once = Once()

    def show(self, snapshot: Snapshot) -> None:
        """Say how far the job is, every two seconds and when its phase changes."""
        line = progress_line(snapshot)
        phase = phase_of(snapshot)
        recent = time.monotonic() - self._said_at < EVERY_SECONDS
        if line == self._line or (phase == self._phase and recent):
            return
        self._line, self._phase, self._said_at = line, phase, time.monotonic()
        self._print(line)

    def tell(self, event: Event) -> None:
        """Say what happened; a program's traceback once."""
        if not is_routine(event):
            self._print(event_line(self._once.shorten(event)))

    def close(self) -> None:
        """Nothing to give back."""
        self._stream.flush()

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


def progress_line(snapshot: Snapshot) -> str:
    """Return one line about the job."""
    status = snapshot.aggregator
    head = f"{snapshot.job.metadata.name}: {phase_of(snapshot)}"
    if status is None:
        return head
    total = f"/{count(status.iterations_total)}" if status.iterations_total else ""
    live = sum(member.state == "Live" for member in status.members)
    parts = [
        f"iteration {count(status.iteration)}{total}",
        f"{status.rate:.3g} it/s",
        f"loss {number(status.loss)}" if status.loss is not None else "",
        f"lr {number(status.learning_rate)}" if status.learning_rate is not None else "",
        figures(status.evaluation),
        f"live {live} of {_size(snapshot, status)}",
        f"dropped {count(sum(member.dropped for member in status.members))}",
        f"eta {clock(status.eta_seconds)}" if status.eta_seconds is not None else "",
    ]
    return "  ".join([head, *(part for part in parts if part)])


def _size(snapshot: Snapshot, status: AggregatorStatus) -> int:
    """Workers that should be live. In Async one gradient makes an update, so N in force is 1."""
    aggregation = snapshot.job.spec.aggregation
    return aggregation.total if aggregation.mode == "Async" else status.required + status.backups


def is_routine(event: Event) -> bool:
    """Whether the event is only worth looking up (`backupsync events`)."""
    return event.kind == "Normal" and event.reason in _ROUTINE


def event_line(event: Event) -> str:
    """Return an event as a line, with the last words of a process below it."""
    moment = time.strftime("%H:%M:%S", time.localtime(event.at))
    mark = "warning: " if event.kind == "Warning" else ""
    detail = "".join(f"\n    {line}" for line in event.detail.splitlines())
    return f"{moment} {mark}{event.reason}: {event.message}{detail}"
