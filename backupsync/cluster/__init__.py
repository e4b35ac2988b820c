"""A BackupSyncJob on a cluster, from Python: `from backupsync.cluster import Client`."""

from backupsync.cluster.client import Client
from backupsync.cluster.errors import (
    ClusterError,
    Conflict,
    Ended,
    Forbidden,
    Invalid,
    NotFound,
    NotInstalled,
    TimedOut,
    Unreachable,
)
from backupsync.cluster.types import (
    Aggregation,
    Aggregator,
    Condition,
    Decision,
    Event,
    Job,
    JobState,
    LogLine,
    Member,
    Progress,
    Workers,
)
from backupsync.cluster.waiting import Until

__all__ = [
    "Aggregation",
    "Aggregator",
    "Client",
    "ClusterError",
    "Condition",
    "Conflict",
    "Decision",
    "Ended",
    "Event",
    "Forbidden",
    "Invalid",
    "Job",
    "JobState",
    "LogLine",
    "Member",
    "NotFound",
    "NotInstalled",
    "Progress",
    "TimedOut",
    "Unreachable",
    "Until",
    "Workers",
]
