"""The job's clock: seconds since its first start, across every aggregator it has had."""

import time


class Clock:
    """Wall-clock origin, monotonic progress: a correction of the system's time does not move deadlines."""

    def __init__(self, started: float | None = None) -> None:
        wall = time.time()
        self.started = wall if started is None else min(started, wall)
        """Unix time of the job's first start."""
        self._offset = (wall - self.started) - time.monotonic()

    def now(self) -> float:
        """Return seconds since the job's first start."""
        return time.monotonic() + self._offset
