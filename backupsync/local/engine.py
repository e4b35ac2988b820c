"""The local engine: observe, plan, write the plan down, act. The planner is the operator's; the hands differ.

One engine per job, held apart by the job's lock. Nothing it starts outlives it.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from msgspec import structs

from backupsync.control import AggregatorStatus, Desired, DesiredMember
from backupsync.errors import BackupSyncError
from backupsync.launch import control_token
from backupsync.lifecycle import plan, worth_writing
from backupsync.lifecycle.types import (
    Action,
    Announce,
    Delete,
    JobStatus,
    Observed,
    Plan,
    Replica,
    ReplicaId,
    Start,
    Stop,
    Tell,
)
from backupsync.local.client import Poller
from backupsync.local.events import Event, append_event, event
from backupsync.local.home import FINISHED, JobDirectory, RunFacts
from backupsync.local.last_words import Sayings
from backupsync.local.launches import Launches
from backupsync.local.observer import Observer, Snapshot
from backupsync.local.processes import ProcessTable, Spawn
from backupsync.local.signals import Interrupted, StopSignals, WakeUp
from backupsync.spec import BackupSyncJob

LOOK_SECONDS = 0.2
"""Longest time between two looks: job.json is polled, not watched."""
WRITE_SECONDS = 1.0
"""Progress alone is written down this often."""
UNWRITTEN_SECONDS = 60.0
"""How long the job goes on while its status cannot be written."""


class Engine:
    """Runs one job to its end, or until it is asked to stop."""

    def __init__(self, directory: JobDirectory, facts: RunFacts, observer: Observer, log_format: str) -> None:
        self._directory = directory
        self._facts = facts
        self._observer = observer
        self._log_format = log_format
        self._job = directory.read_job()
        self._signature = directory.job_signature()
        self._status = directory.read_status()
        self._written_at = 0.0
        self._unwritten_since: float | None = None
        self._explanation: tuple[str, ...] = ()
        self._words = Sayings()
        self._poller: Poller | None = None
        self._wake = WakeUp()
        self._signals = StopSignals(self._wake.set)
        self._token = control_token(_key(directory))

    def request_stop(self) -> None:
        """Ask the job to write a checkpoint and end, as the first Ctrl-C does."""
        self._signals.request()

    @property
    def job(self) -> BackupSyncJob:
        """The manifest in force."""
        return self._job

    @property
    def interrupted(self) -> bool:
        """Whether somebody asked to stop."""
        return self._signals.requested

    def run(self) -> JobStatus:
        """Run the job and return its last status. Raises Interrupted after the second Ctrl-C."""
        with self._signals, _runtime_directory(self._directory.runtime_file) as runtime:
            self._launches = Launches(self._directory, self._facts, runtime, self._log_format)
            self._processes = ProcessTable(self._prepare)
            try:
                self._loop()
            except Interrupted:
                self._tell(event("Warning", "Killed", "second Ctrl-C: every process was ended at once"))
                raise
            finally:
                self._signals.hold_off()
                self._end()
        return self._status

    def _loop(self) -> None:
        while True:
            made = self._look()
            for action in made.actions:
                self._act(action)
            self._show()
            if self._over():
                return
            self._wait(made.requeue_after)

    def _look(self) -> Plan:
        self._reload()
        for replica in self._processes.tick():
            self._words.add(replica)
            self._tell(_farewell(replica))
        observed = Observed(
            replicas=self._processes.replicas(),
            aggregator=self._answer(),
            stop_requested=self._signals.requested,
        )
        made = plan(self._job, observed, self._status, time.time())
        if not self._written(made):
            return structs.replace(made, actions=(), requeue_after=LOOK_SECONDS)
        self._processes.keep(self._intended)
        return made

    def _intended(self, replica: ReplicaId) -> bool:
        if replica.role == "aggregator":
            return replica.attempt == self._status.aggregator_attempt
        return any((m.rank, m.attempt) == (replica.rank, replica.attempt) for m in self._status.members)

    def _answer(self) -> AggregatorStatus | None:
        if self._poller is None:
            return None
        replica = ReplicaId("aggregator", 0, self._poller.epoch)
        return self._poller.latest if self._processes.pid(replica) is not None else None

    def _reload(self) -> None:
        signature = self._directory.job_signature()
        if signature == self._signature:
            return
        self._signature = signature
        try:
            job = changeable(self._job, self._directory.read_job())
        except BackupSyncError as error:
            self._tell(event("Warning", "SpecRefused", f"the job goes on as it was: {error}"))
            return
        before, self._job = self._job, job
        if difference := ", ".join(_changes("spec", *map(_spec_of, (before, job)))):
            self._tell(event("Normal", "SpecChanged", difference))

    def _written(self, made: Plan) -> bool:
        """Write the plan down; False where the disk refuses: then nothing is done, and all planned again."""
        try:
            self._write_down(made)
        except OSError as error:
            self._bear(error)
            return False
        self._unwritten_since = None
        return True

    def _bear(self, error: OSError) -> None:
        """What runs goes on while the disk is full, for a while. Raises BackupSyncError after it."""
        now, place = time.monotonic(), self._directory.path
        if self._unwritten_since is None:
            self._unwritten_since = now
            self._tell(
                event(
                    "Warning", "StateNotWritten", f"{place}: {error.strerror}: nothing is started or stopped"
                )
            )
        if not place.is_dir() or now - self._unwritten_since > UNWRITTEN_SECONDS:
            raise BackupSyncError(
                f"state directory {place}: cannot be written: {error.strerror}; every process was ended: "
                "make room and start the job again, or name another place"
            ) from error

    def _write_down(self, made: Plan) -> None:
        intent = worth_writing(self._status, made.status)
        if intent or (made.status != self._status and time.monotonic() - self._written_at > WRITE_SECONDS):
            self._directory.write_status(made.status, durable=intent)
            self._written_at = time.monotonic()
        self._status = made.status
        if made.explanation != self._explanation:
            self._explanation = made.explanation
            with suppress(OSError):  # for people only
                self._directory.write_explanation(made.explanation)

    def _act(self, action: Action) -> None:
        match action:
            case Start(replica, reason):
                self._start(replica, reason)
            case Stop(replica, _, grace):
                self._processes.stop(replica, grace)
            case Tell(desired, _):
                if self._poller is not None:
                    self._poller.tell(desired)
            case Announce(kind, reason, message):
                self._tell(event(kind, reason, self._words.shorten(message)))
            case Delete():
                pass  # the record of a local job stays until `backupsync delete`

    def _start(self, replica: ReplicaId, reason: str) -> None:
        pid = self._processes.start(replica)
        if pid is None:
            return
        if replica.role == "aggregator":
            self._poll(replica.attempt)
        self._tell(event("Normal", "Started", f"{_name(replica)} as process {pid}: {reason}"))

    def _poll(self, epoch: int) -> None:
        if self._poller is not None:
            self._poller.close()
        http_file = self._directory.http_file(epoch)
        self._poller = Poller(http_file, epoch, self._token, self._wake.set)

    def _prepare(self, replica: ReplicaId, starts: int) -> Spawn:
        if replica.role == "worker":
            return self._launches.worker(self._job, replica, starts)
        desired = self._status.desired or _desired(self._job)
        return self._launches.aggregator(self._job, replica, desired, begun=self._status.begun)

    def _over(self) -> bool:
        ended = self._status.phase in FINISHED or self._signals.requested
        return ended and not self._processes.running

    def _wait(self, requeue_after: float | None) -> None:
        times = [LOOK_SECONDS, requeue_after, self._processes.next_deadline()]
        timeout = min(max(0.0, t) for t in times if t is not None)
        wait([self._wake.fileno(), *self._processes.sentinels()], timeout)
        self._wake.clear()

    def _show(self) -> None:
        self._observer.show(
            Snapshot(
                job=self._job,
                status=self._status,
                replicas=self._processes.replicas(),
                aggregator=self._answer() or self._status.progress,
                stopping=self._signals.requested,
                explanation=self._explanation,
                at=time.time(),
            )
        )

    def _tell(self, happened: Event) -> None:
        with suppress(OSError):  # a full disk: whoever watches is told all the same
            append_event(self._directory.events_file, happened)
        self._observer.tell(happened)

    def _end(self) -> None:
        self._processes.kill_all()
        if self._poller is not None:
            self._poller.close()
        with suppress(OSError):  # what it intended is written; only the last figures are lost
            self._directory.write_status(self._status)
        self._wake.close()


@contextmanager
def _runtime_directory(note: Path) -> Iterator[Path]:
    """Make the place of the run's sockets; remove the one that a killed engine left, as noted down."""
    if note.exists():
        shutil.rmtree(note.read_text(encoding="utf-8"), ignore_errors=True)
    # Short, and this user's alone: a socket's path holds at most 107 bytes (unix(7)).
    path = Path(tempfile.mkdtemp(prefix="backupsync-"))
    note.write_text(str(path), encoding="utf-8")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        note.unlink(missing_ok=True)


def _key(directory: JobDirectory) -> bytes:
    return bytes.fromhex(directory.key_file.read_text(encoding="ascii").strip())


def _desired(job: BackupSyncJob) -> Desired:
    aggregation = job.spec.aggregation
    return Desired(
        term=0,
        generation=0,
        members=tuple(DesiredMember(rank, 1) for rank in range(aggregation.total)),
        workers=aggregation.workers,
        backup_workers=aggregation.backup_workers,
    )


def _name(replica: ReplicaId) -> str:
    if replica.role == "aggregator":
        return f"aggregator (epoch {replica.attempt})"
    return f"worker {replica.rank} (attempt {replica.attempt})"


def _farewell(replica: Replica) -> Event:
    assert replica.exit is not None
    message = f"{_name(replica.id)} ended with exit code {replica.exit_code} ({replica.exit})"
    if replica.exit_code == 0:
        return event("Normal", "Exited", message)
    return event("Warning", "Exited", message, replica.message)


def changeable(before: BackupSyncJob, after: BackupSyncJob) -> BackupSyncJob:
    """Return `after` if it changes only what may change while a job runs. Raises BackupSyncError."""
    old, new = _spec_of(before), _spec_of(after)
    for spec in (old, new):
        del spec["aggregation"]["workers"], spec["aggregation"]["backupWorkers"], spec["runPolicy"]
    if after.metadata.name != before.metadata.name:
        raise BackupSyncError(f"metadata.name: {after.metadata.name} is another job's")
    if difference := ", ".join(_changes("spec", old, new)):
        raise BackupSyncError(
            f"{difference}: only workers, backupWorkers and runPolicy change while a job runs; "
            "stop it, change its manifest and start it again"
        )
    return after


def _spec_of(job: BackupSyncJob) -> dict[str, Any]:
    return job.spec.model_dump(mode="json", by_alias=True)


def _changes(path: str, before: object, after: object) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from _changes(f"{path}.{key}", before.get(key), after.get(key))
    elif before != after:
        yield f"{path}: {before} → {after}"
