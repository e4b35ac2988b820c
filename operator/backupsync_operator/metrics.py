"""What the operator exports: how long looks take, what waits, what was asked of the API server.

Series of a job vanish with it; no label ever carries what a pod says of itself.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from backupsync_operator.queue import Key

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """One registry per operator, so that several live beside each other in a process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconciles = Histogram(
            "backupsync_operator_reconcile_seconds",
            "Duration of one look at a job, by outcome (ok, error, bug).",
            ["outcome"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.overlaps = Counter(
            "backupsync_operator_overlapping_reconciles",
            "Looks at a job that began while another was under way: always 0.",
            registry=self.registry,
        )
        self.requests = Counter(
            "backupsync_operator_api_requests",
            "Requests to the API server, by verb, resource and HTTP code (none: no answer).",
            ["verb", "resource", "code"],
            registry=self.registry,
        )
        self.events = Counter(
            "backupsync_operator_watch_events",
            "Objects seen by the informers.",
            ["resource"],
            registry=self.registry,
        )
        self.jobs = Gauge("backupsync_operator_jobs", "Jobs by state.", ["state"], registry=self.registry)
        self._depth = self._gauge("queue_depth", "Jobs that wait for a look.")
        self._oldest = self._gauge("queue_oldest_seconds", "How long the longest waiting job has waited.")
        self._active = self._gauge("active", "1 while this operator holds the Lease.")
        self._term = self._gauge("term", "Term of this operator's Lease; 0 while it holds none.")
        self._states: dict[Key, str] = {}
        for verb in ("ok", "error", "bug"):
            self.reconciles.labels(verb)

    def watch(
        self, *, depth: Callable[[], float], oldest: Callable[[], float], term: Callable[[], float]
    ) -> None:
        """Read the gauges from these when they are asked for."""
        self._depth.set_function(depth)
        self._oldest.set_function(oldest)
        self._term.set_function(term)
        self._active.set_function(lambda: float(term() > 0))

    def count_request(self, verb: str, resource: str, code: str) -> None:
        """Count a request to the API server."""
        self.requests.labels(verb, resource, code).inc()

    def state(self, key: Key, state: str | None) -> None:
        """A job is in this state from now on; None: it is no more."""
        before = self._states.pop(key, None)
        if before is not None:
            self.jobs.labels(before).dec()
        if state is not None:
            self._states[key] = state
            self.jobs.labels(state).inc()

    def exposition(self) -> bytes:
        """Everything, in the text format of Prometheus."""
        return generate_latest(self.registry)

    def read(self, name: str, labels: Mapping[str, str] | None = None) -> float:
        """Sum of the samples of `name` that carry `labels`."""
        wanted = (labels or {}).items()
        return float(sum(s.value for s in self._samples() if s.name == name and wanted <= s.labels.items()))

    def _samples(self) -> Iterable[Any]:
        return (sample for family in self.registry.collect() for sample in family.samples)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"backupsync_operator_{name}", text, registry=self.registry)
