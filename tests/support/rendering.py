"""Rendering a pod from a manifest, and looking into it."""

from typing import Any, TypeVar

from backupsync.launch import AggregatorLaunch, WorkerLaunch, from_environment
from backupsync.lifecycle.types import JobStatus, ReplicaId
from backupsync_operator.cr import job_of
from backupsync_operator.render import Images, JobContext, pod

L = TypeVar("L", WorkerLaunch, AggregatorLaunch)


def resource(spec: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None) -> dict[str, Any]:
    """A custom resource as the API server holds it, `spec` laid over a small valid one."""
    return {
        "apiVersion": "backupsync.dev/v1alpha1",
        "kind": "BackupSyncJob",
        "metadata": {
            "name": "digits",
            "namespace": "lab",
            "uid": "u-1",
            "generation": 4,
            "resourceVersion": "17",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            **(metadata or {}),
        },
        "spec": {
            "program": {"entrypoint": "digits:Digits"},
            "aggregation": {"workers": 2, "backupWorkers": 1},
            "training": {"iterations": 100, "batchSize": 8, "optimizer": {"lr": 0.1}},
            **(spec or {}),
        },
    }


def context_of(
    spec: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
    status: JobStatus | None = None,
) -> JobContext:
    """What that resource's objects are rendered from."""
    return JobContext(
        job=job_of(resource(spec, metadata)),
        namespace="lab",
        uid="u-1",
        images=Images(worker="worker:frozen", aggregator="aggregator:frozen"),
        status=status or JobStatus(),
    )


def render(
    replica: ReplicaId, spec: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The pod of `replica`."""
    return pod(context_of(spec, metadata), replica)


def container(made: dict[str, Any], name: str) -> dict[str, Any]:
    """A container of a pod by its name."""
    return next(c for c in made["spec"]["containers"] if c["name"] == name)


def environment(made: dict[str, Any], kind: type[L]) -> L:
    """The launch that the pod's container of that kind reads back."""
    role = "worker" if kind is WorkerLaunch else "aggregator"
    plain = {v["name"]: v["value"].replace("$$", "$") for v in container(made, role)["env"] if "value" in v}
    return from_environment(kind, plain)
