"""Processes from a preloaded forkserver: torch is imported once, not once per worker.

Nine imports of torch cost 8-10 s on a small machine; nine forks of a process that has it, next to nothing.
"""

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from types import ModuleType
from typing import Any

PRELOADED = "backupsync.local.preload"


def start_process(target: Callable[..., None], args: tuple[Any, ...], name: str) -> ForkServerProcess:
    """Start `target` in a fork of the forkserver, which is started first where none runs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOADED])
    process = context.Process(target=target, args=args, name=name)
    with _bare_main():
        with _interrupts_ignored():
            forkserver.ensure_running()
        process.start()
    return process


@contextmanager
def _bare_main() -> Iterator[None]:
    """Hide `__main__`: children must not import the command line, or a user's script, once more."""
    kept = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = kept


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Let the forkserver, and so its children, inherit that SIGINT is not theirs."""
    try:
        kept = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # not the main thread: whoever runs the engine there has no Ctrl-C to guard
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, kept)
