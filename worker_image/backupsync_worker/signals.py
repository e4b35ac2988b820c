"""Signals of a worker: SIGTERM asks it to leave, twice at once; Ctrl-C is the engine's affair."""

import os
import signal
from types import FrameType

from backupsync.exits import Exit


class Stopped(Exception):  # noqa: N818 -- a request, not a fault
    """The process has been asked to end."""


class Stop:
    """Whether this process has been asked to end."""

    def __init__(self) -> None:
        self.requested = False
        self._pid = os.getpid()

    def install(self) -> None:
        """Take over SIGTERM and SIGINT. Call it from the main thread."""
        self._pid = os.getpid()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_terminate)

    def check(self) -> None:
        """Raise Stopped if this process has been asked to end."""
        if self.requested:
            raise Stopped("SIGTERM")

    def _on_terminate(self, _number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            # A child forked from here (a loader's process) inherits the handler, but not its meaning.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        elif self.requested:
            os._exit(Exit.SUCCESS)
        else:
            self.requested = True


STOP = Stop()
"""The process's own; `main` installs it."""
