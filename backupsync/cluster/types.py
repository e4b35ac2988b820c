"""What the cluster tells about a job, as typed structures: what `-o json` prints and `Client` returns.

Read leniently: a field that a newer operator adds is passed over, one that an older one lacks has its
default.
"""

from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from backupsync.cluster.errors import ClusterError

JobState = Literal["Pending", "Running", "Suspended", "Succeeded", "Failed"]


class _Told(Struct, frozen=True, kw_only=True, rename="camel"):
    """A part of what is told: camelCase outside, as in the manifest."""


class Condition(_Told, frozen=True, kw_only=True):
    """A condition, by the Kubernetes API conventions."""

    type: str
    """Accepted, Ready, Suspended, Succeeded or Failed."""
    status: Literal["True", "False", "Unknown"]
    reason: str = ""
    """CamelCase word; docs tell what to do about each."""
    message: str = ""
    last_transition_time: datetime | None = None


class Aggregation(_Told, frozen=True, kw_only=True):
    """What is asked for, under the manifest's own names."""

    mode: str = "BackupSync"
    """BackupSync, Sync or Async."""
    workers: int = 0
    """N: gradients averaged in every iteration."""
    backup_workers: int = 0
    """b: workers beyond N."""


class Workers(_Told, frozen=True, kw_only=True):
    """How many workers there are, by what they do."""

    desired: int = 0
    live: int = 0
    """Joined, by the aggregator's word."""
    running: int = 0
    """Pods that run."""
    pending: int = 0
    failed: int = 0
    succeeded: int = 0


class Aggregator(_Told, frozen=True, kw_only=True):
    """The aggregator in office."""

    epoch: int = 0
    pod: str = ""
    node: str = ""
    ready: bool = False
    crashes: int = 0
    losses: int = 0
    """Ends that were not its fault."""


class Member(_Told, frozen=True, kw_only=True):
    """One rank: its pod and its history."""

    rank: int
    attempt: int = 0
    pod: str = ""
    node: str = ""
    phase: str = ""
    crashes: int = 0
    """In a row, with no gradient between: held against backoffLimit."""
    crashes_total: int = 0
    losses: int = 0
    evictions: int = 0
    restarts: int = 0
    """In place."""
    slow: bool = False


class Progress(_Told, frozen=True, kw_only=True):
    """How far the training is, as last written down (some seconds ago at most)."""

    iteration: int = 0
    """Updates applied."""
    iterations: int | None = None
    """Updates at the end, exact or estimated."""
    percent: float | None = None
    iterations_per_second: float = 0.0
    eta_seconds: float | None = None
    loss: float | None = None
    examples: int = 0
    checkpoint_iteration: int | None = None
    evaluation: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    last_update_time: datetime | None = None


class Decision(_Told, frozen=True, kw_only=True):
    """What the operator decided, and why."""

    time: datetime | None = None
    text: str = ""


class _Status(_Told, frozen=True, kw_only=True):
    observed_generation: int = 0
    state: JobState = "Pending"
    conditions: tuple[Condition, ...] = ()
    start_time: datetime | None = None
    completion_time: datetime | None = None
    workers: Workers = Workers()
    aggregator: Aggregator = Aggregator()
    ranks: tuple[Member, ...] = ()
    progress: Progress | None = None
    images: dict[str, str] = field(default_factory=dict)
    operator_version: str = ""
    decisions: tuple[Decision, ...] = ()


class Job(_Told, frozen=True, kw_only=True):
    """A BackupSyncJob: what was asked for, and how it stands."""

    name: str
    namespace: str
    uid: str
    created: datetime | None
    deleting: bool
    generation: int
    """Raised by every change of the spec."""
    observed_generation: int
    """The generation that the operator last judged; 0 before it has seen the job."""
    state: JobState
    aggregation: Aggregation
    suspend: bool
    """Whether suspension is asked for."""
    conditions: tuple[Condition, ...]
    workers: Workers
    aggregator: Aggregator
    ranks: tuple[Member, ...]
    progress: Progress | None
    start_time: datetime | None
    completion_time: datetime | None
    images: dict[str, str]
    """Images the job runs with, fixed when it was accepted."""
    operator_version: str
    decisions: tuple[Decision, ...]
    """The operator's newest decisions, oldest first."""

    @property
    def finished(self) -> bool:
        """Whether the job has ended, for good."""
        return self.state in ("Succeeded", "Failed")

    def condition(self, kind: str) -> Condition | None:
        """Return the condition of this type, None where nothing is known of it."""
        return next((condition for condition in self.conditions if condition.type == kind), None)


class Event(_Told, frozen=True, kw_only=True):
    """An Event of the job or of one of its pods."""

    time: datetime | None
    kind: Literal["Normal", "Warning"]
    reason: str
    message: str
    object: str
    """KIND/NAME of what it is about."""
    count: int = 1
    source: str = ""
    """Component that reports it."""


class LogLine(_Told, frozen=True, kw_only=True):
    """One line of a pod's log."""

    pod: str
    role: str
    rank: int
    attempt: int
    time: str
    """RFC 3339, with nanoseconds."""
    text: str


def job_of(document: dict[str, Any]) -> Job:
    """Read a BackupSyncJob as the API server gives it. Raises ClusterError for one that is none."""
    meta, spec = document.get("metadata") or {}, document.get("spec") or {}
    name = str(meta.get("name", ""))
    try:
        status = msgspec.convert(document.get("status") or {}, _Status, strict=False)
        aggregation = msgspec.convert(spec.get("aggregation") or {}, Aggregation)
        created = msgspec.convert(meta.get("creationTimestamp"), datetime | None)
    except msgspec.ValidationError as error:
        raise ClusterError(
            f"job {name}: its status cannot be read: {error}; is this client as new as the operator?"
        ) from error
    return Job(
        name=name,
        namespace=str(meta.get("namespace", "")),
        uid=str(meta.get("uid", "")),
        created=created,
        deleting=meta.get("deletionTimestamp") is not None,
        generation=int(meta.get("generation", 0)),
        aggregation=aggregation,
        suspend=bool((spec.get("runPolicy") or {}).get("suspend", False)),
        **{name: getattr(status, name) for name in status.__struct_fields__},
    )


def event_of(document: dict[str, Any]) -> Event:
    """Read an Event of the core API, whichever of its two generations of fields is filled in."""
    about = document.get("involvedObject") or {}
    series = document.get("series") or {}
    moments = (
        series.get("lastObservedTime"),
        document.get("lastTimestamp"),
        document.get("eventTime"),
        document.get("firstTimestamp"),
        (document.get("metadata") or {}).get("creationTimestamp"),
    )
    moment = next((m for m in moments if m), None)
    return Event(
        time=msgspec.convert(moment, datetime | None),
        kind="Warning" if document.get("type") == "Warning" else "Normal",
        reason=str(document.get("reason") or ""),
        message=str(document.get("message") or "").strip(),
        object=f"{about.get('kind', '')}/{about.get('name', '')}",
        count=int(series.get("count") or document.get("count") or 1),
        source=str(
            (document.get("source") or {}).get("component") or document.get("reportingComponent") or ""
        ),
    )


def to_json(value: Any) -> bytes:
    """Return what `-o json` prints: the structure, indented."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2)
