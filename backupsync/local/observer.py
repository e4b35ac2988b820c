"""What the engine shows to whoever watches: one snapshot after each look, and every event."""

from typing import Protocol

from msgspec import Struct

from backupsync.control import AggregatorStatus
from backupsync.lifecycle.types import JobStatus, Replica
from backupsync.local.events import Event
from backupsync.spec import BackupSyncJob


class Snapshot(Struct, frozen=True, kw_only=True):
    """The job at one moment."""

    job: BackupSyncJob
    status: JobStatus
    replicas: tuple[Replica, ...]
    aggregator: AggregatorStatus | None
    """Newest answer of the running aggregator, or the last one known."""
    stopping: bool = False
    explanation: tuple[str, ...] = ()
    at: float = 0.0
    """Unix time."""


class Observer(Protocol):
    """Shows a run while it lasts."""

    def show(self, snapshot: Snapshot) -> None:
        """Take in the job's newest state."""

    def tell(self, event: Event) -> None:
        """Show one event."""

    def close(self) -> None:
        """Give the terminal back."""


class Silent:
    """Shows nothing."""

    def show(self, snapshot: Snapshot) -> None:
        """Ignore it."""

    def tell(self, event: Event) -> None:
        """Ignore it."""

    def close(self) -> None:
        """Nothing to give back."""
