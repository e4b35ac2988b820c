"""The `BackupSyncJob` manifest as a model: the one description of what a user may ask for."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from backupsync.spec.aggregation import AggregationSpec
from backupsync.spec.base import SpecModel
from backupsync.spec.training import TrainingSpec

API_VERSION = "backupsync.dev/v1alpha1"
KIND = "BackupSyncJob"

# Room for "-worker-999-99" within the 63 characters of a DNS label (RFC 1123).
JobName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=45)
]


class ProgramSpec(SpecModel):
    """The user's code: a class the worker imports, or a script with its own loop."""

    entrypoint: str | None = Field(default=None, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """`module:Class` of a Program, importable from the manifest's directory or the image."""
    script: str | None = Field(default=None, min_length=1)
    """Path of a Python script that joins by `backupsync_worker.join()`, relative to the manifest."""
    args: dict[str, Any] = {}
    """Keyword arguments of the class, or `session.args` of a script."""

    @model_validator(mode="after")
    def _one_door(self) -> Self:
        if (self.entrypoint is None) == (self.script is None):
            raise ValueError("set exactly one of entrypoint (module:Class) and script (path)")
        return self


class CheckpointSpec(SpecModel):
    """Where and how often the job's state is written."""

    path: str | None = Field(default=None, min_length=1)
    """Directory of checkpoints and models, relative to the working directory of `backupsync run`; by default
    within the job's state."""
    every_iterations: int = Field(default=100, ge=1)
    """Iterations between checkpoints: at most this many are lost with the aggregator."""
    keep: int = Field(default=3, ge=1)
    """Newest checkpoints kept."""
    retention: Literal["Retain", "Delete"] = "Retain"
    """Retain the checkpoints when the job is deleted, or Delete them with it."""
    volume_claim_template: dict[str, Any] | None = None
    """A PersistentVolumeClaim template, on a cluster."""


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
    """The finished job is deleted after this long."""
    clean_pod_policy: Literal["None", "Running", "All"] = "Running"
    """Which pods are deleted when the job finishes."""
    managed_by: str | None = None
    """Another controller that owns this job; ours then leaves it alone."""


class SecuritySpec(SpecModel):
    """Protection of the wire beyond the HMAC that every join carries."""

    encryption: Literal["None", "Curve"] = "None"
    """Curve encrypts and authenticates every message (CurveZMQ)."""


class RoleSpec(SpecModel):
    """One role's pod template; the container named after the role is ours."""

    template: dict[str, Any] | None = None
    """A PodTemplateSpec, passed through whole."""


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
    """Kubernetes object metadata, as far as a local run looks at it."""

    name: JobName
    """Name of the job: lower-case letters, digits and dashes, at most 45."""
    namespace: str | None = None
    """Namespace, on a cluster."""
    labels: dict[str, str] = {}
    """Labels, passed to every pod."""
    annotations: dict[str, str] = {}
    """Annotations, passed to every pod."""


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
