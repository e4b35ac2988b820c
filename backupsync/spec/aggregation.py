"""How gradients are gathered: N, b, the mode, what happens below N, and the wire they travel on."""

from enum import StrEnum
from typing import Final, Self

from pydantic import Field, model_validator

from backupsync.spec.base import SpecModel

MOST_WORKERS: Final = 1000
"""N + b at most: every rank has its place in the status of the job, which is one object on a cluster."""


class Mode(StrEnum):
    """Which gradients make an update (Chen et al., algorithms 1-4)."""

    BACKUP_SYNC = "BackupSync"
    """The first N of N+b gradients of an iteration, averaged."""
    SYNC = "Sync"
    """All N gradients of an iteration (b = 0)."""
    ASYNC = "Async"
    """Every gradient at once, however stale, up to `maxStaleness`."""


class BelowQuorum(StrEnum):
    """What the job does while fewer than N workers are live."""

    WAIT = "Wait"
    SHRINK = "Shrink"
    FAIL = "Fail"


class DroppedBatches(StrEnum):
    """What becomes of the mini-batch of a dropped gradient."""

    DISCARD = "Discard"
    REQUEUE = "Requeue"


class Transport(StrEnum):
    """The transport between workers and aggregator."""

    AUTO = "Auto"
    TCP = "Tcp"
    IPC = "Ipc"


class WireDtype(StrEnum):
    """The element type gradients travel in; they are always summed in float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class WireSpec(SpecModel):
    """The bytes between workers and aggregator."""

    dtype: WireDtype = WireDtype.FLOAT32
    """Element type of gradients on the wire."""
    chunk_bytes: int = Field(default=2 * 1024 * 1024, ge=4096, le=64 * 1024 * 1024, multiple_of=64)
    """Largest payload of one message, in bytes: a gradient leaves in chunks of this size."""
    transport: Transport = Transport.AUTO
    """Tcp, Ipc (one host only), or Auto: Ipc where every process is on this host, else Tcp."""
    port: int = Field(default=0, ge=0, le=65535)
    """Tcp port of the aggregator; 0 lets the local engine choose a free one, and means 5555 on a cluster."""
    heartbeat_seconds: float = Field(default=1.0, gt=0, le=60)
    """How often a worker says that it lives."""
    timeout_seconds: float = Field(default=10.0, gt=0, le=600)
    """A worker silent for this long is no longer live."""
    stall_seconds: float = Field(default=600.0, gt=0)
    """A worker whose program passes no boundary (chunk, micro-batch, wait) for this long hangs: not live."""

    @model_validator(mode="after")
    def _timeout_exceeds_heartbeat(self) -> Self:
        if self.timeout_seconds < 2 * self.heartbeat_seconds:
            raise ValueError(
                f"timeoutSeconds {self.timeout_seconds:g} must be at least twice heartbeatSeconds "
                f"{self.heartbeat_seconds:g}, or a single late heartbeat ends a healthy worker"
            )
        if self.stall_seconds < self.timeout_seconds:
            raise ValueError(
                f"stallSeconds {self.stall_seconds:g} must be at least timeoutSeconds "
                f"{self.timeout_seconds:g}: a worker that computes says less than one that lives"
            )
        return self


class QuorumSpec(SpecModel):
    """What the job does while fewer than N workers are live."""

    policy: BelowQuorum = BelowQuorum.WAIT
    """Wait for replacements, Shrink to the live ones, or Fail at once."""
    deadline_seconds: float = Field(default=600.0, gt=0)
    """With Wait, also before training begins: the job fails after this long below N. With Shrink: shrinks
    after this long, and fails after this long below `minimum`."""
    minimum: int = Field(default=1, ge=1)
    """With Shrink: fewest workers that may make an iteration."""


class AggregationSpec(SpecModel):
    """Which gradients make an update."""

    mode: Mode = Mode.BACKUP_SYNC
    """BackupSync averages the first N of N+b gradients of an iteration, Sync all N (b = 0); Async applies
    every gradient at once, however stale, up to `maxStaleness`."""
    workers: int = Field(ge=1, le=MOST_WORKERS)
    """N: gradients averaged in every iteration."""
    backup_workers: int = Field(default=0, ge=0, le=MOST_WORKERS)
    """b: workers beyond N, whose gradients are dropped when they come late."""
    max_staleness: int | None = Field(default=None, ge=0)
    """Async only: gradients computed on parameters older than this many updates are dropped."""
    below_quorum: QuorumSpec = QuorumSpec()
    """What happens below N live workers."""
    dropped_batches: DroppedBatches = DroppedBatches.DISCARD
    """Discard the mini-batch of a dropped gradient, or Requeue it for another worker."""
    max_requeues: int = Field(default=3, ge=1, le=100)
    """With Requeue: how often one mini-batch may come back."""
    abandon_late: bool = True
    """Late workers stop computing a stale batch at the next bucket or micro-batch boundary."""
    non_finite_limit: int = Field(default=10, ge=1)
    """Consecutive gradients that are not finite after which the job fails as Diverged."""
    wire: WireSpec = WireSpec()
    """The bytes between workers and aggregator."""

    @property
    def total(self) -> int:
        """N + b: workers that run."""
        return self.workers + self.backup_workers

    @model_validator(mode="after")
    def _few_enough(self) -> Self:
        if self.total > MOST_WORKERS:
            raise ValueError(
                f"workers {self.workers} and backupWorkers {self.backup_workers} are {self.total} together: "
                f"a job runs at most {MOST_WORKERS}"
            )
        return self

    @model_validator(mode="after")
    def _mode_fits(self) -> Self:
        if self.mode is not Mode.BACKUP_SYNC and self.backup_workers:
            raise ValueError(
                f"mode {self.mode} takes no backup workers: set backupWorkers to 0, not "
                f"{self.backup_workers}, or mode to BackupSync"
            )
        if self.max_staleness is not None and self.mode is not Mode.ASYNC:
            raise ValueError(
                f"maxStaleness is for mode Async; mode {self.mode} never applies a stale gradient"
            )
        if self.below_quorum.minimum > self.workers:
            raise ValueError(
                f"belowQuorum.minimum {self.below_quorum.minimum} must not exceed workers {self.workers}"
            )
        return self
