"""What Prometheus sees of the aggregator: everything stragglers are judged by, in a registry of its own."""

import contextlib
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_UPDATES: Final = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128)
_PHASES: Final = ("Joining", "Training", "Evaluating", "Suspended", "Succeeded", "Failed")
_STATES: Final = ("Live", "Candidate", "Lost", "Fenced")


class Metrics:
    """The metrics of one aggregator."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._define_progress()
        self._define_workers()
        self._define_service()

    def _define_progress(self) -> None:
        at = self.registry
        self.iteration = Gauge("backupsync_iteration", "Updates applied so far.", registry=at)
        self.iterations = Counter("backupsync_iterations", "Updates applied by this process.", registry=at)
        self.iteration_seconds = Histogram(
            "backupsync_iteration_duration_seconds",
            "From the begin of an iteration to its update.",
            buckets=_SECONDS,
            registry=at,
        )
        self.required = Gauge("backupsync_required_gradients", "N in force.", registry=at)
        self.backups = Gauge("backupsync_backup_workers", "b in force.", registry=at)
        self.examples_applied = Counter(
            "backupsync_examples_applied", "Examples of accepted gradients.", registry=at
        )
        self.examples_dropped = Counter(
            "backupsync_examples_dropped", "Examples of dropped gradients.", registry=at
        )
        self.loss = Gauge(
            "backupsync_loss", "Training loss of the newest gradient.", ["outcome"], registry=at
        )
        self.learning_rate = Gauge("backupsync_learning_rate", "Learning rate in force.", registry=at)
        self.staleness = Histogram(
            "backupsync_staleness",
            "Updates between a gradient's parameters and its use.",
            buckets=_UPDATES,
            registry=at,
        )
        self.phase = Gauge("backupsync_aggregator_phase", "1 for the current phase.", ["phase"], registry=at)

    def _define_workers(self) -> None:
        at, labels = self.registry, ["rank", "attempt"]
        self.gradients = Counter(
            "backupsync_gradients", "Gradients by fate.", ["rank", "outcome", "reason"], registry=at
        )
        self.arrival_seconds = Gauge(
            "backupsync_worker_arrival_lag_seconds",
            "Median time from the begin of an iteration to the worker's gradient.",
            labels,
            registry=at,
        )
        self.busy_seconds = Gauge(
            "backupsync_worker_busy_seconds",
            "Median time from parameters delivered to COMMIT, of batches run to the end.",
            labels,
            registry=at,
        )
        self.window = Gauge(
            "backupsync_worker_window_id", "Samples seen so far: tells a new window from an old one.", labels,
            registry=at,
        )  # fmt: skip
        self.workers = Gauge("backupsync_workers", "Members by state.", ["state"], registry=at)

    def _define_service(self) -> None:
        at = self.registry
        self.received_bytes = Counter("backupsync_received_bytes", "Bytes received.", registry=at)
        self.sent_bytes = Counter("backupsync_sent_bytes", "Bytes handed to the sockets.", registry=at)
        self.refused_messages = Counter(
            "backupsync_refused_messages", "Messages refused, by code.", ["code"], registry=at
        )
        self.discarded_chunks = Counter(
            "backupsync_discarded_chunks", "Chunks of gradients that nobody asked for.", registry=at
        )
        self.checkpoint_seconds = Histogram(
            "backupsync_checkpoint_duration_seconds", "Writing a checkpoint.", buckets=_SECONDS, registry=at
        )
        self.checkpoint_success = Gauge(
            "backupsync_checkpoint_last_success_timestamp_seconds",
            "Unix time of the newest one.",
            registry=at,
        )
        self.checkpoint_failures = Counter(
            "backupsync_checkpoint_failures", "Checkpoints that could not be written.", registry=at
        )

    def show_phase(self, current: str) -> None:
        """Set the phase gauge: 1 for the current one, 0 for the others."""
        for phase in _PHASES:
            self.phase.labels(phase).set(phase == current)

    def show_workers(self, counts: dict[str, int]) -> None:
        """Set the number of members in each state."""
        for state in _STATES:
            self.workers.labels(state).set(counts.get(state, 0))

    def forget_worker(self, rank: int, attempt: int) -> None:
        """Drop the series of an attempt that is gone, so that their number stays bounded."""
        for gauge in (self.arrival_seconds, self.busy_seconds, self.window):
            with contextlib.suppress(KeyError):  # not every attempt has every figure
                gauge.remove(str(rank), str(attempt))

    def render(self) -> bytes:
        """Return the exposition text."""
        return generate_latest(self.registry)
