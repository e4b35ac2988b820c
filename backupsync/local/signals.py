"""Ctrl-C: the first asks the job to stop and be resumable, the second ends everything at once."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Self


class Interrupted(BaseException):
    """The second Ctrl-C; no Exception, so that nothing on its way mistakes it for an error."""


_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """While entered, SIGINT, SIGTERM and SIGHUP become a request to stop; the second raises Interrupted."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._received = 0
        self._final = False
        self._kept: dict[signal.Signals, object] = {}

    @property
    def requested(self) -> bool:
        """Whether the user asked to stop."""
        return self._received > 0

    def request(self) -> None:
        """Ask to stop, as the first Ctrl-C does."""
        self._received += 1
        self._wake()

    def hold_off(self) -> None:
        """From now on nothing interrupts: the processes are being ended."""
        self._final = True

    def __enter__(self) -> Self:
        for number in _STOP:
            with suppress(ValueError):  # not the main thread: no signals arrive there
                self._kept[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._kept.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._received += 1
        self._wake()
        if self._received > 1 and not self._final:
            raise Interrupted


class WakeUp:
    """A pipe that becomes readable when somebody wants the engine to look."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def fileno(self) -> int:
        """The end to wait on."""
        return self._reader

    def set(self) -> None:
        """Make it readable."""
        with suppress(BlockingIOError, OSError):  # full is as good as set; closed: nobody looks any more
            os.write(self._writer, b"x")

    def clear(self) -> None:
        """Take note."""
        with suppress(BlockingIOError):
            while os.read(self._reader, 4096):
                pass

    def close(self) -> None:
        """Release both ends."""
        os.close(self._reader)
        os.close(self._writer)
