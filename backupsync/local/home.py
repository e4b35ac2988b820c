"""Where local jobs live: one documented directory, one folder per job.

`$BACKUPSYNC_HOME`, else `$XDG_STATE_HOME/backupsync`, else `~/.local/state/backupsync`; or `--state-dir`.
`jobs/NAME/` holds job.json (the manifest as it runs), run.json (facts of the run), status.json (the planner's
memory), key, lock, events.jsonl, explanation.json, logs/, ports/, trace.jsonl and, by default, checkpoints/.
"""

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from pydantic import ValidationError

from backupsync.errors import BackupSyncError
from backupsync.lifecycle.types import JobStatus
from backupsync.local.files import write_atomically
from backupsync.local.locks import Lock, exclusively
from backupsync.spec import BackupSyncJob

T = TypeVar("T")

FINISHED = ("Succeeded", "Failed")


class RunFacts(Struct, frozen=True, kw_only=True):
    """What stays the same for a job from its first start to its end."""

    uid: str
    manifest_source: str
    """Path of the manifest, as the user gave it."""
    program_directory: str
    checkpoint_directory: str
    endpoint_port: int = 0
    """Tcp port of the aggregator; 0 with Ipc."""
    threads: int = 1
    """Intra-op threads of every worker."""
    injection: dict[str, Any] | None = None
    started: float = 0.0
    """Unix time of the first start."""
    replay_trace: str | None = None
    """Trace of the run that this one recomputes."""


def state_root(override: Path | None = None, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the directory of all local state."""
    if override is not None:
        return override.expanduser().absolute()
    if home := environment.get("BACKUPSYNC_HOME"):
        return Path(home).expanduser().absolute()
    if state := environment.get("XDG_STATE_HOME"):
        return Path(state).expanduser().absolute() / "backupsync"
    return Path.home() / ".local" / "state" / "backupsync"


class JobDirectory:
    """The folder of one job: every file of it by name, read and written whole."""

    def __init__(self, root: Path, name: str) -> None:
        self.name = name
        self.path = root / "jobs" / name
        self.job_file = self.path / "job.json"
        self.facts_file = self.path / "run.json"
        self.status_file = self.path / "status.json"
        self.key_file = self.path / "key"
        self.events_file = self.path / "events.jsonl"
        self.explanation_file = self.path / "explanation.json"
        self.trace_file = self.path / "trace.jsonl"
        self.report_file = self.path / "report.json"
        self.runtime_file = self.path / "runtime"
        """Where the sockets of the running engine lie."""
        self.logs = self.path / "logs"
        self.ports = self.path / "ports"
        self.checkpoints = self.path / "checkpoints"
        self.lock = Lock(self.path / "lock")

    @property
    def exists(self) -> bool:
        """Whether a run of this name has left its state here."""
        return self.facts_file.exists()

    def require(self) -> None:
        """Raise BackupSyncError unless the job is known here."""
        if not self.exists:
            known = sorted(p.parent.name for p in self.path.parent.glob("*/run.json"))
            here = f"known here: {', '.join(known)}" if known else "no job has run here"
            raise BackupSyncError(
                f"job {self.name}: is not in {self.path.parent.parent} ({here}); "
                "start it with `backupsync run`, or name another place with --state-dir"
            )

    def create(self) -> None:
        """Make the folder and its key, readable by this user alone."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            for folder in (self.logs, self.ports):
                folder.mkdir(exist_ok=True)
            if not self.key_file.exists():
                write_atomically(self.key_file, secrets.token_bytes(32).hex().encode())
        except OSError as error:
            raise BackupSyncError(
                f"state directory {self.path}: cannot be written: {error.strerror}; "
                "name another with --state-dir or BACKUPSYNC_HOME"
            ) from error

    def remove(self) -> None:
        """Delete the folder with everything in it but the held lock, which goes last."""
        shutil.rmtree(self.path, ignore_errors=False)

    def clear(self) -> None:
        """Delete what an earlier run left, keeping the folder and its lock."""
        for entry in self.path.iterdir():
            if entry == self.lock.path:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def read_job(self) -> BackupSyncJob:
        """Return the manifest as it runs. Raises BackupSyncError when the file is damaged."""
        try:
            return BackupSyncJob.model_validate_json(self._read(self.job_file))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise BackupSyncError(f"{self.job_file}: is damaged: {where} {first['msg']}".strip()) from error

    def write_job(self, job: BackupSyncJob) -> None:
        """Replace the manifest; a running engine takes it up."""
        write_atomically(self.job_file, job.model_dump_json(by_alias=True, indent=2).encode() + b"\n")

    @contextmanager
    def editing(self) -> Iterator[None]:
        """Hold off other commands that change the manifest."""
        with exclusively(self.path / "edit.lock"):
            yield

    def job_signature(self) -> tuple[int, int]:
        """Return what changes whenever job.json is replaced, or taken away."""
        try:
            stat = self.job_file.stat()
        except OSError:
            return (0, 0)
        return (stat.st_mtime_ns, stat.st_ino)

    def read_facts(self) -> RunFacts:
        """Return the facts of the run."""
        return self._decode(self.facts_file, RunFacts)

    def write_facts(self, facts: RunFacts) -> None:
        """Write the facts of the run; from then on the job exists."""
        write_atomically(self.facts_file, msgspec.json.format(msgspec.json.encode(facts)) + b"\n")

    def read_status(self) -> JobStatus:
        """Return the planner's memory; a fresh one when nothing is written yet."""
        return self._decode(self.status_file, JobStatus) if self.status_file.exists() else JobStatus()

    def write_status(self, status: JobStatus, *, durable: bool = True) -> None:
        """Write the planner's memory; must come before the actions it intends."""
        write_atomically(self.status_file, msgspec.json.encode(status), durable=durable)

    def write_explanation(self, lines: tuple[str, ...]) -> None:
        """Keep the planner's latest reasons, for `backupsync explain`."""
        write_atomically(self.explanation_file, msgspec.json.encode(lines), durable=False)

    def read_explanation(self) -> tuple[str, ...]:
        """Return the planner's latest reasons."""
        return self._decode(self.explanation_file, tuple[str, ...]) if self.explanation_file.exists() else ()

    def worker_log(self, rank: int, attempt: int, start: int) -> Path:
        """Return the log file of one start of a worker."""
        return self.logs / f"worker-{rank}-{attempt}-{start}.log"

    def aggregator_log(self, epoch: int) -> Path:
        """Return the log file of one epoch of the aggregator."""
        return self.logs / f"aggregator-{epoch}.log"

    def http_file(self, epoch: int) -> Path:
        """Return where the aggregator of this epoch writes its port."""
        return self.ports / f"aggregator-{epoch}.json"

    def metrics_file(self, rank: int, attempt: int) -> Path:
        """Return where a worker writes the port of its /metrics."""
        return self.ports / f"worker-{rank}-{attempt}.json"

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise BackupSyncError(f"{path}: cannot be read: {error.strerror}") from error

    def _decode(self, path: Path, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(self._read(path), type=kind)
        except msgspec.MsgspecError as error:
            raise BackupSyncError(
                f"{path}: is damaged: {error}; start anew with `backupsync run --replace`"
            ) from error
