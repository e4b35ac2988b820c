"""Waking the loop from another thread or from a signal handler: a byte on a socket pair that it polls."""

import contextlib
import signal
import socket
import threading
from types import FrameType
from typing import Any, Self


class Wake:
    """A file descriptor to poll, and a way to make it readable that is safe from anywhere."""

    def __init__(self) -> None:
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor to poll for reading."""
        return self._receiver.fileno()

    def ring(self) -> None:
        """Make the poll return."""
        with contextlib.suppress(BlockingIOError, OSError):
            self._sender.send(b"\0")

    def clear(self) -> None:
        """Take note: what rang has been heard."""
        with contextlib.suppress(BlockingIOError):
            while self._receiver.recv(4096):
                pass

    def close(self) -> None:
        """Close both ends."""
        self._receiver.close()
        self._sender.close()


class StopSignal:
    """SIGTERM asks to stop; SIGINT is the engine's to answer, for Ctrl-C reaches all of a terminal."""

    def __init__(self, wake: Wake) -> None:
        self.count = 0
        self._wake = wake
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._on_signal)
            self._before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        self._wake.ring()
