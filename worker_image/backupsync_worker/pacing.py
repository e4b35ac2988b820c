"""Injected slowness: a step takes as long as the profile says, unless it becomes pointless first.

What is known in advance is waited for before backward, so that a stale step costs neither CPU nor bytes; what
stretches the real computation can only be known after it.
"""

import logging
import os
import signal
import time
from collections.abc import Callable
from typing import Final

from backupsync.inject import InjectedStep, Injector
from backupsync.launch import WorkerLaunch
from backupsync_worker.timing import Stopwatch

_LOOK_EVERY: Final = 0.01
"""Seconds between two looks at what the aggregator says."""

_log = logging.getLogger(__name__)


class Pacer:
    """Makes this worker as slow as its injection profile says; without one it does nothing."""

    def __init__(self, launch: WorkerLaunch) -> None:
        self._injector = (
            Injector(launch.injection, launch.rank, launch.attempt, launch.node, launch.start)
            if launch.injection is not None
            else None
        )

    def begin(self, iteration: int, ticket: int) -> InjectedStep | None:
        """Return the slowness of a step, None for none. Kills this process if the profile says so."""
        if self._injector is None:
            return None
        step = self._injector.step(iteration, ticket)
        if step.kill:
            _log.warning("killed by the injection profile at iteration %d", iteration)
            os.kill(os.getpid(), signal.SIGKILL)
        return step


def hold_before_backward(
    step: InjectedStep | None, watch: Stopwatch, wait: Callable[[float], None], check: Callable[[], None]
) -> None:
    """Wait for a step time that is known in advance. Raises whatever `check` raises."""
    if step is not None and step.seconds is not None:
        watch.injected = step.seconds
        _hold(step.seconds, step.hog, watch, wait, check)


def hold_after_backward(
    step: InjectedStep | None, watch: Stopwatch, wait: Callable[[float], None], check: Callable[[], None]
) -> None:
    """Stretch what the step really took, where the profile has only factors. Raises as `check`."""
    if step is not None and step.seconds is None:
        due = step.due(watch.elapsed)
        if due > watch.elapsed:
            watch.injected = due
            _hold(due, step.hog, watch, wait, check)


def _hold(
    due: float, hog: bool, watch: Stopwatch, wait: Callable[[float], None], check: Callable[[], None]
) -> None:
    while (left := due - watch.elapsed) > 0:
        check()
        part = min(left, _LOOK_EVERY)
        if hog:
            _burn(part)
        elif part < 0.001:  # below the resolution of a poll
            time.sleep(part)
        else:
            wait(part)


def _burn(seconds: float) -> None:
    """Keep a CPU busy, as a noisy neighbour would."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
