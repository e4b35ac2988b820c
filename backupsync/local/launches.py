"""What each process is told: launch structures from the manifest and the facts of the run."""

import os
import socket
from pathlib import Path

import msgspec

from backupsync.control import Desired
from backupsync.errors import BackupSyncError
from backupsync.inject import local_node
from backupsync.launch import AggregatorLaunch, WorkerLaunch
from backupsync.lifecycle.types import ReplicaId
from backupsync.local.home import JobDirectory, RunFacts
from backupsync.local.processes import Spawn
from backupsync.spec import BackupSyncJob, JobSpec, Transport


def endpoint_of(spec: JobSpec, port: int, runtime: Path) -> str:
    """Return the ZeroMQ endpoint of a local job: ipc in the run's own short directory, or tcp."""
    if spec.aggregation.wire.transport is Transport.TCP:
        return f"tcp://127.0.0.1:{port}"
    return f"ipc://{runtime}/aggregator"


def choose_port(spec: JobSpec) -> int:
    """Return the port for Tcp, checked or chosen; 0 with Ipc. Raises BackupSyncError when it is taken."""
    wire = spec.aggregation.wire
    if wire.transport is not Transport.TCP:
        return 0
    with socket.socket() as probe:
        # As the aggregator binds: a port in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wire.port))
        except OSError as error:
            raise BackupSyncError(
                f"spec.aggregation.wire.port = {wire.port}: {error.strerror}; "
                "choose another, or 0 for any free one"
            ) from error
        return int(probe.getsockname()[1])


def worker_threads(spec: JobSpec) -> int:
    """Return the intra-op threads of every worker: as asked, or its share of the machine."""
    return spec.training.threads or max(1, (os.cpu_count() or 1) // spec.aggregation.total)


class Launches:
    """Builds the launch of every process of one run."""

    def __init__(self, directory: JobDirectory, facts: RunFacts, runtime: Path, log_format: str) -> None:
        self._directory = directory
        self._facts = facts
        self._runtime = runtime
        self._log_format = log_format

    def worker(self, job: BackupSyncJob, replica: ReplicaId, starts: int) -> Spawn:
        """Return the spawn of a worker."""
        start = self._free_start(replica, starts)
        launch = WorkerLaunch(
            job=job.metadata.name,
            uid=self._facts.uid,
            manifest=job.model_dump(mode="json", by_alias=True),
            key_file=str(self._directory.key_file),
            endpoint=self._endpoint(job),
            log_format=self._log_format,
            rank=replica.rank,
            attempt=replica.attempt,
            start=start,
            node=local_node(replica.rank, replica.attempt),
            program_directory=self._facts.program_directory,
            metrics_port=0,
            metrics_file=str(self._directory.metrics_file(replica.rank, replica.attempt)),
            injection=self._facts.injection,
            threads=self._facts.threads,
        )
        return Spawn(launch, self._directory.worker_log(replica.rank, replica.attempt, start))

    def aggregator(self, job: BackupSyncJob, replica: ReplicaId, desired: Desired, *, begun: bool) -> Spawn:
        """Return the spawn of the aggregator; its attempt is its epoch. `begun`: an earlier one trained."""
        epoch = replica.attempt
        http_file = self._directory.http_file(epoch)
        http_file.unlink(missing_ok=True)
        launch = AggregatorLaunch(
            job=job.metadata.name,
            uid=self._facts.uid,
            manifest=job.model_dump(mode="json", by_alias=True),
            key_file=str(self._directory.key_file),
            endpoint=self._endpoint(job),
            log_format=self._log_format,
            epoch=epoch,
            desired=msgspec.to_builtins(desired),
            begun=begun,
            checkpoint_directory=self._facts.checkpoint_directory,
            http_file=str(http_file),
            trace_file=str(self._directory.trace_file),
            replay_file=self._facts.replay_trace,
            injection=self._facts.injection,
            worker_threads=self._facts.threads,
        )
        return Spawn(launch, self._directory.aggregator_log(epoch))

    def _endpoint(self, job: BackupSyncJob) -> str:
        return endpoint_of(job.spec, self._facts.endpoint_port, self._runtime)

    def _free_start(self, replica: ReplicaId, starts: int) -> int:
        # Rises across engines too: a log, and a start that the aggregator knows, is never used twice.
        while self._directory.worker_log(replica.rank, replica.attempt, starts).exists():
            starts += 1
        return starts
