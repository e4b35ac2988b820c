"""The manifest: one model of the `BackupSyncJob`, read and checked in one place."""

from backupsync.spec.aggregation import (
    AggregationSpec,
    BelowQuorum,
    DroppedBatches,
    Mode,
    QuorumSpec,
    Transport,
    WireDtype,
    WireSpec,
)
from backupsync.spec.job import BackupSyncJob, CheckpointSpec, JobSpec, Metadata, ProgramSpec, RunPolicy
from backupsync.spec.manifest import (
    ManifestError,
    ManifestFile,
    Problem,
    load_manifest,
    parse_manifest,
    parse_manifest_file,
)
from backupsync.spec.training import OptimizerSpec, Scaling, ScheduleSpec, TrainingSpec, WarmupSpec

__all__ = [
    "AggregationSpec",
    "BackupSyncJob",
    "BelowQuorum",
    "CheckpointSpec",
    "DroppedBatches",
    "JobSpec",
    "ManifestError",
    "ManifestFile",
    "Metadata",
    "Mode",
    "OptimizerSpec",
    "Problem",
    "ProgramSpec",
    "QuorumSpec",
    "RunPolicy",
    "Scaling",
    "ScheduleSpec",
    "TrainingSpec",
    "Transport",
    "WarmupSpec",
    "WireDtype",
    "WireSpec",
    "load_manifest",
    "parse_manifest",
    "parse_manifest_file",
]
