"""Signals of a worker: SIGTERM asks it to leave, twice at once; Ctrl-C is the engine's affair."""

import os
import signal
from types import FrameType


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
        # From now on the kernel's own answer: it ends also a process that is stuck below Python.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if os.getpid() == self._pid:
            self.requested = True
        else:
            # A child that the program forked inherits the handler, but not its meaning.
            os.kill(os.getpid(), signal.SIGTERM)


STOP = Stop()
"""The process's own; `main` installs it."""
