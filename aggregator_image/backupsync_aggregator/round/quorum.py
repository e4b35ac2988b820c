"""The quorum: how many gradients this iteration needs, and what happens below N live workers."""

from enum import Enum

from backupsync.spec import AggregationSpec, BelowQuorum, Mode


class Watch(Enum):
    """What a look at the number of live workers found."""

    FINE = "fine"
    BELOW = "below"
    SHRUNK = "shrunk"
    FAIL = "fail"


class Quorum:
    """N and b in force, those aimed at, and the number of gradients the running iteration needs."""

    def __init__(self, spec: AggregationSpec, workers: int, backups: int, now: float) -> None:
        self._policy = spec.below_quorum
        self._async = spec.mode is Mode.ASYNC
        self.workers = workers
        """N in force."""
        self.backups = backups
        """b in force."""
        self._aim = (workers, backups)
        self.shrunk: int | None = None
        """What N has shrunk to for want of workers."""
        self.begun = False
        self.goal = 0
        """Gradients the running iteration needs."""
        self.note: str | None = None
        """Why the running iteration needs fewer than N."""
        self._below_since: float | None = now
        self._minimum_since: float | None = now

    @property
    def nominal(self) -> int:
        """N of an update, were everyone there: 1 in Async."""
        return 1 if self._async else self.workers

    @property
    def required(self) -> int:
        """N of an update as things are."""
        return self.nominal if self.shrunk is None else min(self.nominal, self.shrunk)

    @property
    def needed(self) -> int:
        """Live workers without which the policy speaks: N to begin (also in Async), then N of an update."""
        if not self.begun:
            return self.workers if self.shrunk is None else self.shrunk
        return min(self.required, 1 if self._async else self._aim[0])

    def aim(self, workers: int, backups: int) -> None:
        """N and b are desired to be these; before training begins they are in force at once."""
        self._aim = (workers, backups)
        if not self.begun:
            self.workers, self.backups = workers, backups

    def settle(self, live: int) -> bool:
        """Between iterations: put what is aimed at in force. Returns whether N or b changed.

        N falls at once and rises only when enough are live; b goes with it.
        """
        if self.shrunk is not None and not self._async:
            # Grows with those who come back, never beyond N: a job shrunk to one must not stay there.
            self.shrunk = max(self.shrunk, live)
            if self.shrunk >= self.workers:
                self.shrunk = None
        before = (self.workers, self.backups)
        if self._aim[0] <= max(self.workers, live):
            self.workers, self.backups = self._aim
        return before != (self.workers, self.backups)

    def open(self) -> None:
        """An iteration begins."""
        self.goal = self.required
        self.note = "Shrunk" if self.goal < self.nominal else None

    def begin(self) -> None:
        """Enough are live: training begins."""
        self.begun = True
        self._below_since = None
        if self._async:
            self.shrunk = None
        self.open()

    def curtail(self, accepted: int) -> None:
        """The data is at its end: the running iteration makes do with what it has."""
        self.goal, self.note = accepted, "EndOfData"

    def relax(self, accepted: int, reachable: int) -> None:
        """The running iteration cannot reach its goal, and N is about to fall: it ends with fewer."""
        if reachable < self.goal and self._aim[0] < self.workers and not self._async:
            self._lower(max(self._aim[0], accepted), "Resized")

    def watch(self, live: int, accepted: int, now: float) -> Watch:
        """Look at the number of live workers, by the policy `belowQuorum`."""
        shrinks = self._policy.policy is BelowQuorum.SHRINK
        minimum = min(self._policy.minimum, self.needed)
        self._minimum_since = _since(self._minimum_since, live < minimum, now)
        self._below_since = _since(self._below_since, live < self.needed, now)
        if self._below_since is None:
            return Watch.FINE
        if self._policy.policy is BelowQuorum.FAIL and self.begun:
            return Watch.FAIL
        since = self._minimum_since if shrinks and live < minimum else self._below_since
        if since is None or now - since < self._policy.deadline_seconds:
            return Watch.BELOW
        if not shrinks or live < minimum:
            return Watch.FAIL
        self.shrunk = max(minimum, live)
        self._below_since = None
        self._lower(max(self.required, accepted), "Shrunk")
        return Watch.SHRUNK

    def stretched(self, live: int) -> bool:
        """Whether too few are live for what was just put in force, so that the policy must be asked."""
        return live < self.needed or self._below_since is not None

    def time_left(self, now: float) -> float | None:
        """Seconds until the policy's deadline; None while enough are live."""
        if self._below_since is None:
            return None
        return max(0.0, self._policy.deadline_seconds - (now - self._below_since))

    def _lower(self, goal: int, note: str) -> None:
        if goal < self.goal:
            self.goal, self.note = goal, note


def _since(before: float | None, holds: bool, now: float) -> float | None:
    if not holds:
        return None
    return now if before is None else before
