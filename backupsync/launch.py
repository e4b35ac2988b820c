"""How an engine tells a worker or an aggregator process who it is: one structure, one environment.

The local engine and the operator fill the same structures; the process reads them back from its environment.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec
from msgspec import Struct, structs

from backupsync.errors import BackupSyncError
from backupsync.wire.auth import derive_key

WORKER_VARIABLE = "BACKUPSYNC_WORKER"
AGGREGATOR_VARIABLE = "BACKUPSYNC_AGGREGATOR"
NODE_VARIABLE: Final = "BACKUPSYNC_NODE"
"""Name of the node: known to a pod only once it runs, so it stands beside the launch and wins over it."""
START_VARIABLE: Final = "BACKUPSYNC_START"
"""Start of a worker that has replaced itself in place: the higher of this and the launch's counts."""


class _Launch(Struct, frozen=True, kw_only=True):
    """What both roles are told."""

    job: str
    """Name of the job."""
    uid: str
    """uid of the job: what HELLO must say."""
    manifest: dict[str, Any]
    """The whole manifest with every default filled in (`BackupSyncJob.model_dump(by_alias=True)`)."""
    key_file: str
    """File that holds the job's key: 32 bytes as 64 hex digits, readable by this user alone."""
    endpoint: str
    """ZeroMQ endpoint of the aggregator, such as tcp://HOST:PORT or ipc://PATH. A worker resolves HOST anew
    on each attempt to connect; the aggregator in a pod listens on tcp://*:PORT, of IPv4 and IPv6."""
    log_format: str = "text"
    """text or json."""

    def key(self) -> bytes:
        """Read the job's key. Raises BackupSyncError."""
        try:
            key = bytes.fromhex(Path(self.key_file).read_text(encoding="ascii").strip())
        except (OSError, ValueError) as error:
            raise BackupSyncError(f"job key file {self.key_file}: cannot be read: {error}") from error
        if len(key) != 32:
            raise BackupSyncError(f"job key file {self.key_file}: holds {len(key)} bytes, must hold 32")
        return key


class WorkerLaunch(_Launch, frozen=True, kw_only=True):
    """What a worker process is told."""

    rank: int
    attempt: int
    start: int = 0
    """Restarts in place before this one."""
    restart_in_place: Literal["exit", "exec"] = "exit"
    """What a restart in place is: "exit" with 75, for an engine that starts the process again; "exec", for
    one in a pod: the process replaces itself under its pid, with `start` one higher."""
    scratch_directory: str | None = None
    """Directory that outlives the container but not its pod (`kube.names.SCRATCH_DIRECTORY`): there the start
    counter survives a container that was started again. None outside a pod."""
    node: str = "local"
    """Node it runs on; the local engine invents one per attempt, for injection profiles bound to nodes."""
    program_directory: str = "."
    """Directory that the entrypoint or script is found in."""
    metrics_port: int | None = None
    """Port of /metrics; 0 takes a free one, None serves none."""
    metrics_file: str | None = None
    """Where the port that was taken is written, for local runs."""
    injection: dict[str, Any] | None = None
    """Straggler injection profile (see backupsync.inject), filled in."""
    threads: int = 1
    """Intra-op threads of torch."""


class AggregatorLaunch(_Launch, frozen=True, kw_only=True):
    """What an aggregator process is told."""

    epoch: int
    desired: dict[str, Any]
    """Initial desired state (see backupsync.control.Desired)."""
    begun: bool | None = None
    """Whether an earlier epoch was seen to train, so that it must be gone on from; None: nobody can say."""
    checkpoint_directory: str | None = None
    http_host: str = "127.0.0.1"
    """Address that HTTP listens on; "*" is every one, of IPv4 and IPv6, as a pod needs it."""
    http_port: int = 0
    """Port of /status, /control, /metrics and /healthz; 0 takes a free one."""
    http_file: str | None = None
    """Where the port that was taken is written, as JSON {"port": ..., "epoch": ...}."""
    trace_file: str | None = None
    replay_file: str | None = None
    """Trace of a run to recompute instead of training anew."""
    injection: dict[str, Any] | None = None
    """Injection profile, for the trace's header."""
    worker_threads: int = 1
    """Intra-op threads of every worker, for the trace's header."""
    threads: int = 1
    """Intra-op threads of the aggregator's own torch."""


def control_token(key: bytes) -> str:
    """Bearer token of the aggregator's HTTP control, derived from the job's key."""
    return derive_key(key, "control").hex()


L = TypeVar("L", WorkerLaunch, AggregatorLaunch)


def to_environment(launch: WorkerLaunch | AggregatorLaunch) -> dict[str, str]:
    """Return the environment variable by which the process will know who it is."""
    name = WORKER_VARIABLE if isinstance(launch, WorkerLaunch) else AGGREGATOR_VARIABLE
    return {name: msgspec.json.encode(launch).decode()}


def from_environment(kind: type[L], environment: Mapping[str, str] = os.environ) -> L:
    """Read back who this process is. Raises BackupSyncError when nobody said."""
    name = WORKER_VARIABLE if kind is WorkerLaunch else AGGREGATOR_VARIABLE
    text = environment.get(name)
    if text is None:
        raise BackupSyncError(
            f"{name} is not set: this process must be started by `backupsync run` or by the operator"
        )
    try:
        launch = msgspec.json.decode(text, type=kind)
    except msgspec.MsgspecError as error:
        raise BackupSyncError(f"{name}: {error}") from error
    if isinstance(launch, WorkerLaunch):
        placed: Any = _placed(launch, environment)  # isinstance narrows no constrained type variable
        return placed  # type: ignore[no-any-return]
    return launch


def _placed(launch: WorkerLaunch, environment: Mapping[str, str]) -> WorkerLaunch:
    """Add what only the place where the process runs can tell: its node, and which start this is."""
    start = environment.get(START_VARIABLE, "0")
    if not start.isdecimal():
        raise BackupSyncError(f"{START_VARIABLE} = {start!r}: must be a whole number, 0 or more")
    return structs.replace(
        launch,
        node=environment.get(NODE_VARIABLE) or launch.node,
        start=max(launch.start, int(start)),
    )
