"""Watching a job on a cluster until it ends: a picture in a terminal, lines everywhere else."""

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from backupsync.cli.cluster_view import event_line, job_line, render_job
from backupsync.cluster import Client, Event, Forbidden, Job, Unreachable

ENDED: Final = 1
"""Exit code: the job failed, or what was waited for can no longer happen."""

_EVERY_SECONDS: Final = 1.0
_LINE_SECONDS: Final = 2.0
_PATIENCE_SECONDS: Final = 120.0
_EVENTS: Final = 4
_OTHER_LINES: Final = 16
"""Lines of the picture that are no worker's."""


class _Screen(Protocol):
    def show(self, job: Job) -> None: ...
    def tell(self, event: Event) -> None: ...
    def close(self) -> None: ...


def follow_job(client: Client, name: str, *, quiet: bool = False) -> Job:
    """Show the job until it ends; return how it ended. Outlasts restarts of the API server."""
    screen: _Screen = _Nothing() if quiet else (_Picture() if sys.stderr.isatty() else _Lines())
    told = _Told()
    answered = time.monotonic()
    try:
        while True:
            try:
                job = client.get(name)
                screen.show(job)
                told.fresh(client, job, screen.tell)
                answered = time.monotonic()
                if job.finished:
                    return job
            except Unreachable:
                if time.monotonic() - answered > _PATIENCE_SECONDS:
                    raise
            time.sleep(_EVERY_SECONDS)
    finally:
        screen.close()


class _Told:
    """Events that were shown already; a person who may not read events sees none."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str, str], int] = {}
        self._may = True

    def fresh(self, client: Client, job: Job, tell: Callable[[Event], None]) -> None:
        if not self._may:
            return
        try:
            events = client.events(job.name)
        except Forbidden:
            self._may = False
            return
        for event in events:
            key = (event.object, event.reason, event.message)
            if key not in self._seen:
                self._seen[key] = event.count
                tell(event)


class _Nothing:
    def show(self, job: Job) -> None:
        """Show nothing."""

    def tell(self, event: Event) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Nothing to give back."""


class _Lines:
    """A line every two seconds and at each new state; every event of the job, and warnings of its pods."""

    def __init__(self) -> None:
        self._line, self._state, self._said_at = "", "", 0.0

    def show(self, job: Job) -> None:
        line = job_line(job)
        recent = time.monotonic() - self._said_at < _LINE_SECONDS
        if line == self._line or (job.state == self._state and recent):
            return
        self._line, self._state, self._said_at = line, job.state, time.monotonic()
        print(line, file=sys.stderr, flush=True)  # noqa: T201

    def tell(self, event: Event) -> None:
        if _matters(event):
            print(event_line(event), file=sys.stderr, flush=True)  # noqa: T201

    def close(self) -> None:
        sys.stderr.flush()


class _Picture:
    """The job, drawn anew in place; warnings above it for good, other events below it for a while."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._events: deque[Event] = deque(maxlen=_EVENTS)
        self._live = Live(console=self._console, refresh_per_second=4, transient=True, redirect_stdout=False)
        self._live.start()

    def show(self, job: Job) -> None:
        rows = max(3, self._console.height - _OTHER_LINES)
        recent = [Text(event_line(e), style="dim", overflow="ellipsis", no_wrap=True) for e in self._events]
        self._live.update(Group(render_job(job, rows), *([Text()] if recent else []), *recent))

    def tell(self, event: Event) -> None:
        if not _matters(event):
            return
        if event.kind == "Warning":
            self._console.print(escape(event_line(event)), style="yellow", soft_wrap=True)
        else:
            self._events.append(event)

    def close(self) -> None:
        self._live.stop()


def _matters(event: Event) -> bool:
    """Whether a person wants to see it: what befalls the job, and what is wrong with a pod.

    That a container which has just started does not answer yet is neither.
    """
    if event.reason == "Unhealthy" and event.message.startswith("Startup probe"):
        return False
    return event.kind == "Warning" or event.object.startswith("BackupSyncJob/")
