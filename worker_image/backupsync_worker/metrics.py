"""`/metrics` of a worker, in the words of the trace: compute, data wait, push, parameter wait, outcomes.

No label says who this worker is: identity comes from discovery's target labels, never from the pod itself.
"""

import json
import logging
import os
import socket
import threading
from pathlib import Path
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from backupsync.errors import BackupSyncError
from backupsync.wire.messages import Timing

PHASES = ("starting", "waiting", "data", "compute", "push", "evaluate")
_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 150.0, 600.0,
)  # fmt: skip

_log = logging.getLogger(__name__)


class WorkerMetrics:
    """The worker's own registry; every number of it is documented by its help text."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._compute = self._histogram("compute_duration", "Forward and backward of one gradient")
        self._data = self._histogram("data_wait", "Waiting for one mini-batch")
        self._push = self._histogram("push_duration", "Sending one gradient")
        self._parameters = self._histogram("parameter_wait", "From READY to parameters and ticket")
        self._gradients = Counter(
            "backupsync_worker_gradients",
            "Gradients by what the aggregator did with them: accepted, dropped, refused",
            ["outcome"],
            registry=self.registry,
        )
        self._phase = Gauge(
            "backupsync_worker_phase",
            "1 for what the worker does now, 0 for the rest",
            ["phase"],
            registry=self.registry,
        )
        self._iteration = Gauge(
            "backupsync_worker_iteration", "Iteration of the parameters held", registry=self.registry
        )
        self._logged = Gauge(
            "backupsync_worker_logged", "What the program logged", ["name"], registry=self.registry
        )
        self._cpu = self._counter("cpu_seconds", "CPU time while computing gradients")
        self._run_queue = self._counter("run_queue_seconds", "Runnable but waiting for a CPU")
        self._throttled = self._counter("throttled_seconds", "Held back by the CFS quota")
        self._sent = self._counter("sent_bytes", "Bytes sent to the aggregator")
        self._received = self._counter("received_bytes", "Bytes received from the aggregator")
        self._joins = self._counter("joins", "Joins, the first included")
        self.phase("starting")

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(f"backupsync_worker_{name}_seconds", text, registry=self.registry, buckets=_BUCKETS)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"backupsync_worker_{name}", text, registry=self.registry)

    def phase(self, phase: str) -> None:
        """Say what the worker does now, one of PHASES."""
        for name in PHASES:
            self._phase.labels(name).set(name == phase)

    def computed(self, timing: Timing) -> None:
        """Count one whole gradient."""
        self._compute.observe(timing.compute)
        self._data.observe(timing.data)
        self._push.observe(timing.push)
        self._cpu.inc(timing.cpu)
        self._run_queue.inc(timing.run_queue)
        self._throttled.inc(timing.throttled)

    def assigned(self, iteration: int, waited: float) -> None:
        """Count the wait (seconds) for the parameters of `iteration`."""
        self._iteration.set(iteration)
        self._parameters.observe(waited)

    def judged(self, outcome: str) -> None:
        """Count a verdict: accepted, dropped or refused."""
        self._gradients.labels(outcome).inc()

    def logged(self, name: str, value: float) -> None:
        """Show what the program logged."""
        self._logged.labels(name).set(value)

    def joined(self) -> None:
        """Count a join."""
        self._joins.inc()

    def sent(self, count: int) -> None:
        """Count bytes sent."""
        self._sent.inc(count)

    def received(self, count: int) -> None:
        """Count bytes received."""
        self._received.inc(count)


class MetricsServer:
    """Serves one registry over HTTP from a daemon thread."""

    def __init__(self, metrics: WorkerMetrics, port: int, file: str | None) -> None:
        # A file to write the port to means a local run: nobody else has business here.
        # In a pod Prometheus scrapes the pod's address, of IPv4 or IPv6.
        everywhere = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104
        host = "127.0.0.1" if file else everywhere
        try:
            server, thread = start_http_server(port, host, metrics.registry)
        except OSError as error:
            raise BackupSyncError(
                f"metrics port {port}: cannot be taken on {host}: {error}; choose another, or 0 for any"
            ) from error
        self._server: WSGIServer = server
        self._thread: threading.Thread = thread
        self.port = int(server.server_port)
        if file:
            _write_atomically(Path(file), json.dumps({"port": self.port}))
        _log.debug("metrics on port %d", self.port)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _write_atomically(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="ascii")
        temporary.replace(path)
    except OSError as error:
        raise BackupSyncError(f"metrics file {path}: cannot be written: {error}") from error
