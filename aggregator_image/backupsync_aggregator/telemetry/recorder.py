"""Every decision, written down: a line of the trace, and its share of the metrics and the status."""

import contextlib
import logging
import math
from collections import deque
from pathlib import Path
from statistics import median

import msgspec

from backupsync.errors import BackupSyncError
from backupsync.trace import Evaluation, Gradient, Header, Iteration, Line, TraceWriter
from backupsync.wire.messages import Outcome
from backupsync_aggregator.round.events import Member
from backupsync_aggregator.telemetry.metrics import Metrics

_log = logging.getLogger(__name__)

_WINDOW = 64
"""Samples a worker's medians are taken over."""
_FLUSH_SECONDS = 1.0


class Samples:
    """A worker's newest times, in seconds."""

    def __init__(self) -> None:
        self.busy: deque[float] = deque(maxlen=_WINDOW)
        self.arrival: deque[float] = deque(maxlen=_WINDOW)
        self.count = 0


class Recorder:
    """The trace file (if any) and the windows that status and metrics are made from."""

    def __init__(self, path: Path | None, metrics: Metrics) -> None:
        self.problem = ""
        """Why the trace ended early; empty while it goes on."""
        self.loss: float | None = None
        self.evaluation: dict[str, float] = {}
        """Newest evaluation."""
        self.evaluation_problem = ""
        """Why the newest evaluation has no result; empty where it has one."""
        self.samples: dict[Member, Samples] = {}
        self._metrics = metrics
        self._path = path
        self._writer: TraceWriter | None = None
        self._opened = False
        self._held: list[Line] = []
        self._flushed = 0.0
        self._times: deque[tuple[float, int]] = deque(maxlen=_WINDOW + 1)

    def open(self, header: Header | None, *first: Line) -> None:
        """Begin the trace with its header (anew), or go on after a predecessor's lines with `first` ones."""
        self._opened = True
        if self._path is not None and self._writer is None:
            try:
                if header is not None:
                    self._path.unlink(missing_ok=True)
                self._writer = TraceWriter(self._path)
            except OSError as error:
                raise BackupSyncError(f"trace file {self._path}: cannot be written: {error}") from error
            for line in (header, *first, *self._held):
                if line is not None:
                    self._append(line)
            self.flush()
        self._held.clear()

    @property
    def opened(self) -> bool:
        """Whether the header is behind us."""
        return self._opened

    @property
    def exists(self) -> bool:
        """Whether a predecessor left a trace to go on with."""
        return self._path is not None and self._path.exists() and self._path.stat().st_size > 0

    def write(self, line: Line) -> None:
        """Record one line; what comes before the header waits for it."""
        if isinstance(line, Gradient):
            self._count_gradient(line)
        elif isinstance(line, Iteration):
            self._count_iteration(line)
        elif isinstance(line, Evaluation):
            self.evaluation_problem = line.error or ""
            if line.error is None:
                self.evaluation = dict(line.metrics)
        if self._writer is not None:
            self._append(line)
        elif self._path is not None and not self._opened:
            self._held.append(line)

    def rate(self, now: float) -> float:
        """Return iterations per second over the newest window, 0 when unknown."""
        if len(self._times) < 2:
            return 0.0
        (first, begin), (_, end) = self._times[0], self._times[-1]
        return (end - begin) / max(now - first, 1e-9)

    def busy_p50(self, member: Member) -> float | None:
        """Return the median busy seconds of a worker's uncensored batches."""
        samples = self.samples.get(member)
        return median(samples.busy) if samples and samples.busy else None

    def forget(self, member: Member) -> None:
        """Drop the windows of an attempt that is gone."""
        if self.samples.pop(member, None):
            self._metrics.forget_worker(*member)

    def publish(self) -> None:
        """Bring the medians into the metrics."""
        for (rank, attempt), samples in self.samples.items():
            labels = (str(rank), str(attempt))
            self._metrics.window.labels(*labels).set(samples.count)
            if samples.arrival:
                self._metrics.arrival_seconds.labels(*labels).set(median(samples.arrival))
            if samples.busy:
                self._metrics.busy_seconds.labels(*labels).set(median(samples.busy))

    def flush(self, now: float | None = None) -> None:
        """Hand what was written to the operating system: at most once a second where `now` is given."""
        if self._writer is None or (now is not None and now - self._flushed < _FLUSH_SECONDS):
            return
        self._flushed = now if now is not None else self._flushed
        try:
            self._writer.flush()
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Close the trace."""
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.close()
            except OSError as error:
                self._say_incomplete(error)

    def _append(self, line: Line) -> None:
        if self._writer is None:
            return
        try:
            self._writer.write(_readable(line))
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """A disk that is full ends the trace, not the training."""
        self._say_incomplete(error)
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(OSError):
                writer.close()

    def _say_incomplete(self, error: OSError) -> None:
        self.problem = f"the trace {self._path} is incomplete: {error}"
        _log.error("%s", self.problem)

    def _count_gradient(self, line: Gradient) -> None:
        at = self._metrics
        at.gradients.labels(str(line.rank), line.outcome, line.reason or "").inc()
        if line.outcome == Outcome.ACCEPTED:
            at.examples_applied.inc(line.examples)
            at.staleness.observe(max(0, (line.applied_at or line.iteration) - line.iteration))
        elif line.outcome == Outcome.DROPPED:
            at.examples_dropped.inc(line.examples)
        if line.loss is not None:
            at.loss.labels(line.outcome).set(line.loss)
        samples = self.samples.setdefault(Member(line.rank, line.attempt), Samples())
        samples.count += 1
        if line.arrival_seconds is not None:
            samples.arrival.append(line.arrival_seconds)
        if line.to_the_end and line.busy_seconds is not None:
            samples.busy.append(line.busy_seconds)

    def _count_iteration(self, line: Iteration) -> None:
        at = self._metrics
        at.iteration.set(line.iteration + 1)
        at.iterations.inc()
        at.iteration_seconds.observe(max(0.0, line.seconds))
        if line.learning_rate is not None:
            at.learning_rate.set(line.learning_rate)
        self.loss = line.loss if line.loss is not None else self.loss
        self._times.append((line.at, line.iteration + 1))


def completed(line: Iteration, apply_seconds: float, learning_rate: float | None) -> Iteration:
    """Fill in what only the hands know: how long the update took, and at which rate."""
    if line.apply_seconds:
        return line
    return msgspec.structs.replace(
        line,
        apply_seconds=apply_seconds,
        seconds=line.seconds + apply_seconds,
        at=line.at + apply_seconds,
        learning_rate=learning_rate if line.learning_rate is None else line.learning_rate,
    )


def finite_only(metrics: dict[str, float]) -> dict[str, float]:
    """Return the metrics that JSON can carry: it knows neither NaN nor infinity."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _readable(line: Line) -> Line:
    """Replace what a refused gradient may hold but JSON cannot."""
    if isinstance(line, Gradient) and not math.isfinite(line.scale):
        return msgspec.structs.replace(line, scale=0.0)
    return line
