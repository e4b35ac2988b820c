"""How a process that is a container's first one begins and ends.

To the kernel PID 1 is special: a signal for which it has no handler of its own does nothing to it, SIGTERM
included. So there is one from the first moment on, long before torch is loaded and the role has its own.
"""

import faulthandler
import logging
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from backupsync.errors import BackupSyncError
from backupsync.exits import Exit
from backupsync.termination import write_last_words


def begin() -> None:
    """Answer SIGTERM from now on: until the role takes it over, it ends the process at once with 0.

    One that came while the process replaced itself (it is blocked meanwhile) is answered here too.
    """
    signal.signal(signal.SIGTERM, _leave)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    faulthandler.enable()


def refuse(role: str, error: BackupSyncError) -> NoReturn:
    """End a process whose environment is not as it must be, before anybody has said how to log."""
    sys.stderr.write(f"backupsync {role}: {error}\n")
    write_last_words(str(error))
    end(Exit.CONFIGURATION)


def end(code: int) -> NoReturn:
    """End the process with `code`.

    Everything of ours is written and closed by now: taking torch apart would cost seconds of a grace period,
    and a thread that the program left behind must not keep a pod from ending.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(Exit.SUCCESS)
