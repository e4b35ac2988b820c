"""Progress in a terminal: a picture that is drawn anew in place, events above it."""

from collections import deque

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.text import Text

from backupsync.local.events import Event
from backupsync.local.observer import Snapshot
from backupsync.local.progress.once import Once
from backupsync.local.progress.plain import event_line, is_routine
from backupsync.local.progress.view import render

_EVENTS = 3
_OTHER_LINES = 12
"""Lines of the picture that are no worker's."""


class LiveProgress:
    """Draws the job."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._events: deque[Event] = deque(maxlen=_EVENTS)
        self._once = Once()
        self._spinner = Spinner("dots", Text("starting …", style="dim"))
        self._live = Live(
            self._spinner, console=self._console, refresh_per_second=8, transient=True, redirect_stdout=False
        )
        self._live.start()

    def show(self, snapshot: Snapshot) -> None:
        """Draw the newest state."""
        rows = max(3, self._console.height - _OTHER_LINES)
        recent = [Text(event_line(e), style="dim", overflow="ellipsis", no_wrap=True) for e in self._events]
        gap = [Text()] if recent else []
        self._live.update(Group(render(snapshot, rows, self._console.width), *gap, *recent))

    def tell(self, event: Event) -> None:
        """Print a warning above the picture for good; keep the others below it for a while."""
        if event.kind == "Warning":
            self._console.print(escape(event_line(self._once.shorten(event))), style="yellow", soft_wrap=True)
        elif not is_routine(event):
            self._events.append(event)

    def close(self) -> None:
        """Take the picture away."""
        self._live.stop()
