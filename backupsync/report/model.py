"""What a report says: plain data with a JSON form, read by plots, demo and benchmarks.

Times are seconds. `wall_seconds` counts from the beginning of the first iteration, across resumes.
"""

from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from backupsync.errors import BackupSyncError

REPORT_VERSION = 1
LOWER_IS_BETTER = frozenset({"loss", "error", "perplexity", "nll", "mse", "mae", "bits_per_character"})


class ReportError(BackupSyncError):
    """A report that cannot be written or read."""


class Quantiles(Struct, frozen=True):
    """A distribution of seconds, in four numbers."""

    p50: float
    """The median."""
    p90: float
    p99: float
    mean: float


class WorkerReport(Struct, frozen=True, kw_only=True):
    """What became of one rank's gradients, all its attempts together."""

    rank: int
    accepted: int
    dropped: int
    refused: int
    attempts: int = 1
    """Highest attempt that sent a gradient."""
    compute_seconds_p50: float | None = None
    """Median over the batches drawn to run to the end, which are uncensored; over all whole ones if fewer
    than five of those."""


class Arrival(Struct, frozen=True, kw_only=True):
    """The k-th gradient of an iteration, in seconds since the iteration began."""

    k: int
    """From 1: its order."""
    count: int
    """Iterations that saw a k-th gradient: all up to N; beyond, abandoned ones never arrive."""
    mean: float
    p10: float
    p50: float
    p90: float
    ideal_mean: float | None = None
    """Mean k-th order statistic of the injected step times."""


class Staleness(Struct, frozen=True):
    """Updates between the read of the parameters and the application of the gradient."""

    mean: float
    max: int


class BatchStatistics(Struct, frozen=True, kw_only=True):
    """Size and loss of the mini-batches with one outcome: a bias of speed on data shows here."""

    count: int
    examples_mean: float | None = None
    loss_mean: float | None = None


class CurvePoint(Struct, frozen=True, array_like=True):
    """A point of the training curve, the mean over one or more iterations: [wall_seconds, examples, loss]."""

    wall_seconds: float
    examples: int
    loss: float | None


class EvaluationPoint(Struct, frozen=True, kw_only=True):
    """One evaluation."""

    wall_seconds: float
    """When the parameters were made: the evaluation itself runs beside the training."""
    iteration: int
    examples: int
    metrics: dict[str, float]


class Report(Struct, frozen=True, kw_only=True):
    """A whole run."""

    report_version: int = REPORT_VERSION
    """Of this format."""
    name: str
    """Name of the job, or what the plot should call it."""
    mode: str
    """BackupSync, Sync or Async."""
    workers: list[WorkerReport]
    """By rank; every rank that sent a gradient."""
    required: int
    """N of the manifest."""
    backup_workers: int
    """b of the manifest."""
    iterations: int
    """Updates that stand (those lost with an aggregator are not counted)."""
    iteration_seconds: Quantiles | None
    """None when there was no iteration."""
    ideal_seconds: Quantiles | None
    """N-th order statistic of the injected step times; None where they are not absolute, and for Async."""
    iteration_quantiles: list[float]
    """101 quantiles of the iteration time, from 0 % to 100 %."""
    ideal_quantiles: list[float]
    """101 quantiles of the ideal."""
    examples: int
    """Applied examples."""
    examples_per_second: float
    """Applied examples over wall seconds."""
    wall_seconds: float
    """From the beginning of the first iteration to the last update, downtime included."""
    final: dict[str, float]
    """The newest evaluation; `loss` is the training loss of the last update unless the program gives one."""
    dropped_ratio: float
    """Dropped gradients over all that were decided on."""
    coverage: float
    """Share of the mini-batches handed out that were applied at least once. Tickets run through the data set
    pass by pass, so what is missing from 1 was not learnt from in its pass."""
    passes: float | None
    """Applied mini-batches over those of one pass; None where the data has no length."""
    staleness: Staleness | None
    """Async only."""
    arrivals: list[Arrival]
    """Empty for Async, whose iterations wait for one gradient."""
    curve: list[CurvePoint]
    """At most 500 points."""
    evaluations: list[EvaluationPoint]
    """At most 500, the last among them."""
    batches: dict[str, BatchStatistics]
    """Under `accepted` and `dropped`."""
    loss_difference: float | None
    """Mean loss of dropped minus accepted gradients of the same iterations; far from 0 means that what is
    dropped is not a fair sample."""
    resumes: int = 0
    """Times that a new aggregator took over."""
    outcome: str | None
    """Succeeded, Failed or Suspended; None when the trace has no end."""
    reason: str
    """One word for the outcome, such as Completed or Diverged."""
    message: str = ""
    """The outcome in words."""

    def time_to(self, metric: str, threshold: float) -> float | None:
        """Return the wall seconds at which `metric` first reached `threshold`, None if it never did.

        Reached from above for losses and errors, from below for everything else. A `loss` that no evaluation
        holds is looked up in the training curve.
        """
        points = [(e.wall_seconds, e.metrics[metric]) for e in self.evaluations if metric in e.metrics]
        if not points and metric == "loss":
            points = [(p.wall_seconds, p.loss) for p in self.curve if p.loss is not None]
        sign = -1.0 if metric.rsplit("/", 1)[-1] in LOWER_IS_BETTER else 1.0
        return next((wall for wall, value in points if sign * value >= sign * threshold), None)

    def write(self, path: Path) -> None:
        """Write the report as JSON, whole or not at all. Raises ReportError."""
        text = msgspec.json.format(msgspec.json.encode(self), indent=1)
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(text + b"\n")
            temporary.replace(path)
        except OSError as error:
            raise ReportError(f"report {path}: cannot be written: {error}") from error
        finally:
            with suppress(OSError):  # it was renamed, or never made
                temporary.unlink()


def read_report(path: Path) -> Report:
    """Read a report that `Report.write` wrote. Raises ReportError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except OSError as error:
        raise ReportError(f"report {path}: cannot be read: {error}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ReportError(f"report {path}: is no report: {error}") from error
