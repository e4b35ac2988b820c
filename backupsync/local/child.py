"""What a process of the local engine does before its role begins: its log, its session, its death.

Imported by the forkserver, so it imports nothing heavy itself.
"""

import ctypes
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from importlib import import_module
from multiprocessing.connection import wait
from typing import Any

from backupsync.exits import Exit
from backupsync.launch import AggregatorLaunch, WorkerLaunch, to_environment

ROLE_MODULES = {"worker": "backupsync_worker.main", "aggregator": "backupsync_aggregator.main"}
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies (Linux; elsewhere a thread watches)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def run_role(role: str, launch: WorkerLaunch | AggregatorLaunch, log: str) -> None:
    """Become the role; never returns."""
    # A session of its own: the terminal's Ctrl-C is the engine's alone, and whatever the program
    # starts (loader workers) can be ended with it as one process group.
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    _write_to(log)
    threading.Thread(target=_watch_parent, name="watch-engine", daemon=True).start()
    os.environ.update(to_environment(launch))
    code = _run(role, launch)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # Not sys.exit: a thread that the program left behind must not keep the process.
    os._exit(code)


def _run(role: str, launch: WorkerLaunch | AggregatorLaunch) -> int:
    try:
        main: Callable[[Any], int] = import_module(ROLE_MODULES[role]).main
        return int(main(launch))
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)  # noqa: T201 -- what the interpreter does with it
            return Exit.CRASHED
        return int(error.code or 0)
    except BaseException:
        traceback.print_exc()
        return Exit.CRASHED


def _write_to(log: str) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(handle, stream.fileno())
    os.close(handle)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable(sys.stderr)


def _watch_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    wait([parent.sentinel])
    os.killpg(0, signal.SIGKILL)
