"""The `BackupSyncJob` manifest as a model: the one description of what a user may ask for."""

from collections.abc import Collection
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from backupsync.spec.aggregation import AggregationSpec
from backupsync.spec.base import SpecModel
from backupsync.spec.training import TrainingSpec

API_VERSION = "backupsync.dev/v1alpha1"
KIND = "BackupSyncJob"

# Room for "-worker-999-99" within the 63 characters of a DNS label (RFC 1123).
JobName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=45)
]


# What an API server adds to an object: `kubectl get -o yaml` shows it, and nothing here reads it.
SERVER_METADATA: Final = frozenset(
    {
        "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers", "generateName",
        "generation", "managedFields", "ownerReferences", "resourceVersion", "selfLink", "uid",
    }
)  # fmt: skip


class ProgramSpec(SpecModel):
    """The user's code: a class the worker imports, or a script with its own loop."""

    entrypoint: str | None = Field(
        default=None, max_length=512, pattern=r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$"
    )
    """`module:Class` of a Program, importable from the manifest's directory or the image."""
    script: str | None = Field(default=None, min_length=1, max_length=4096)
    """Path of a Python script that joins by `backupsync_worker.join()`, relative to the manifest or, on a
    cluster, to the worker's working directory."""
    args: dict[str, Any] = {}
    """Keyword arguments of the class, or `session.args` of a script."""

    @model_validator(mode="after")
    def _one_door(self) -> Self:
        if (self.entrypoint is None) == (self.script is None):
            raise ValueError("set exactly one of entrypoint (module:Class) and script (path)")
        return self


class CheckpointSpec(SpecModel):
    """Where and how often the job's state is written."""

    path: str | None = Field(default=None, min_length=1, max_length=4096)
    """Directory of checkpoints and models, relative to the working directory of `backupsync run`; by default
    within the job's state. On a cluster: an absolute path on a volume of the aggregator's template."""
    every_iterations: int = Field(default=100, ge=1)
    """Iterations between checkpoints: at most this many are lost with the aggregator."""
    keep: int = Field(default=3, ge=1)
    """Newest checkpoints kept."""
    retention: Literal["Retain", "Delete"] = "Retain"
    """Retain the checkpoints when the job is deleted, or Delete them with it."""
    volume_claim_template: dict[str, Any] | None = None
    """On a cluster: the PersistentVolumeClaim (metadata and spec) that holds the checkpoints. Without it, and
    without a volume at `path`, they are lost with the aggregator's pod."""

    @field_validator("volume_claim_template")
    @classmethod
    def _is_a_claim(cls, given: dict[str, Any] | None) -> dict[str, Any] | None:
        return _template_of("claim", given)


class StragglerSpec(SpecModel):
    """How persistently slow workers are judged."""

    mode: Literal["Observe"] = "Observe"
    """Observe shows who is slow; in this version nothing is done about it."""


class RunPolicy(SpecModel):
    """The life of the job, as `batch/v1` Job has it."""

    suspend: bool = False
    """No workers run while true; training resumes from the checkpoint."""
    suspend_grace_seconds: float = Field(default=60.0, gt=0)
    """How long suspension waits for the checkpoint."""
    backoff_limit: int = Field(default=6, ge=0)
    """Consecutive crashes of one rank, with no gradient between, after which the job fails."""
    active_deadline_seconds: float | None = Field(default=None, gt=0)
    """The job fails after running this long; suspension does not count."""
    ttl_seconds_after_finished: int | None = Field(default=None, ge=0)
    """The finished job is deleted after this long; absent means never."""
    clean_pod_policy: Literal["None", "Running", "All"] = "Running"
    """Which pods are deleted when the job finishes."""
    managed_by: str | None = Field(default=None, min_length=1, max_length=63)
    """Another controller that owns this job; ours then leaves it alone."""
    node_lost_grace_seconds: float = Field(default=30.0, gt=0)
    """On a cluster: replicas on a node that is out of reach for this long are replaced, the old pods deleted
    by force."""
    pending_deadline_seconds: float = Field(default=3600.0, gt=0)
    """On a cluster: the job fails when training waits this long for pods that cannot start (unschedulable,
    image missing)."""


class SecuritySpec(SpecModel):
    """Protection of the wire beyond the HMAC that every join carries."""

    encryption: Literal["None", "Curve"] = "None"
    """Curve encrypts and authenticates every message (CurveZMQ)."""


class RoleSpec(SpecModel):
    """One role's pod template; the container named after the role is ours."""

    template: dict[str, Any] | None = None
    """A PodTemplateSpec (metadata and spec), passed through whole."""

    @field_validator("template")
    @classmethod
    def _is_a_pod_template(cls, given: dict[str, Any] | None) -> dict[str, Any] | None:
        return _template_of("pod", given)


class JobSpec(SpecModel):
    """The specification of a BackupSyncJob."""

    program: ProgramSpec
    """The user's code."""
    aggregation: AggregationSpec
    """Which gradients make an update."""
    training: TrainingSpec
    """How the model is trained."""
    checkpoint: CheckpointSpec = CheckpointSpec()
    """Where the job's state is written."""
    stragglers: StragglerSpec = StragglerSpec()
    """How persistently slow workers are judged."""
    run_policy: RunPolicy = RunPolicy()
    """The life of the job."""
    security: SecuritySpec = SecuritySpec()
    """Protection of the wire."""
    worker: RoleSpec = RoleSpec()
    """Pod template of the workers."""
    aggregator: RoleSpec = RoleSpec()
    """Pod template of the aggregator."""

    @property
    def reference_workers(self) -> int:
        """The N that the learning rate was tuned for."""
        return self.training.reference_workers or self.aggregation.workers


class Metadata(SpecModel):
    """Kubernetes object metadata, as far as the job looks at it; what an API server adds is left aside."""

    name: JobName
    """Name of the job: lower-case letters, digits and dashes, at most 45."""
    namespace: str | None = None
    """Namespace, on a cluster."""
    labels: dict[str, str] = {}
    """Labels, passed to every pod."""
    annotations: dict[str, str] = {}
    """Annotations, passed to every pod."""

    @model_validator(mode="before")
    @classmethod
    def _leave_the_servers_own(cls, given: Any) -> Any:
        return _without(given, SERVER_METADATA)


class BackupSyncJob(SpecModel):
    """A training job with N workers and b backup workers."""

    api_version: Literal["backupsync.dev/v1alpha1"]
    """Always `backupsync.dev/v1alpha1`."""
    kind: Literal["BackupSyncJob"]
    """Always `BackupSyncJob`."""
    metadata: Metadata
    """Name and labels."""
    spec: JobSpec
    """What is asked for."""

    @model_validator(mode="before")
    @classmethod
    def _leave_the_status(cls, given: Any) -> Any:
        return _without(given, {"status"})


def _template_of(kind: str, given: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a template whose outermost shape is right; what stands inside is the API server's to judge."""
    if stray := sorted(str(key) for key in (given or {}).keys() - {"metadata", "spec"}):
        raise ValueError(f"a {kind} template holds metadata and spec, not {', '.join(stray)}")
    for part, inside in (given or {}).items():
        if not isinstance(inside, dict):
            raise ValueError(f"{part} of a {kind} template must be a mapping")  # noqa: TRY004 -- pydantic's
    return given


def _without(given: Any, names: Collection[str]) -> Any:
    """A mapping without some keys; anything else is left to be refused."""
    return {k: v for k, v in given.items() if k not in names} if isinstance(given, dict) else given
