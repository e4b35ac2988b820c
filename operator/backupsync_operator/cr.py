"""From a custom resource to the job it asks for, and what is frozen of it at admission. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from backupsync.errors import BackupSyncError
from backupsync.kube.checkpoints import path_problem
from backupsync.kube.names import HTTP_PORT, WIRE_PORT
from backupsync.lifecycle.types import JobStatus, Role
from backupsync.spec import BackupSyncJob, Transport
from backupsync.spec.manifest import ManifestError, check_manifest
from backupsync_operator.render import Images
from backupsync_operator.templates import container_of, template_problems

_METADATA = ("name", "namespace", "labels", "annotations")
"""What a job's model knows of metadata: the rest is the server's."""


class BadSpec(BackupSyncError):  # noqa: N818  what it is, not that it is one
    """A custom resource that the API server let through and that cannot be run."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


def job_of(resource: Mapping[str, Any]) -> BackupSyncJob:
    """Return the job that `resource` asks for. Raises BadSpec with every problem in it."""
    metadata = resource.get("metadata") or {}
    document = {
        "apiVersion": resource.get("apiVersion"),
        "kind": resource.get("kind"),
        "metadata": {key: metadata[key] for key in _METADATA if metadata.get(key) is not None},
        "spec": resource.get("spec"),
    }
    try:
        job = check_manifest(document, "the custom resource")
    except ManifestError as error:
        raise BadSpec([str(problem) for problem in error.problems]) from error
    if problems := list(_cluster_problems(job)):
        raise BadSpec(problems)
    return job


def _cluster_problems(job: BackupSyncJob) -> Iterator[str]:
    """What is right in a local run and wrong on a cluster."""
    wire = job.spec.aggregation.wire
    if wire.transport is Transport.IPC:
        yield "spec.aggregation.wire.transport = Ipc: pods share no file system; take Tcp or Auto"
    if wire.port == HTTP_PORT:
        yield (
            f"spec.aggregation.wire.port = {wire.port}: the aggregator's pod serves HTTP there; "
            f"take another, or 0 for {WIRE_PORT}"
        )
    shapes = list(template_problems(job))
    yield from shapes
    if not shapes and (problem := path_problem(job)):
        yield problem


def frozen(
    job: BackupSyncJob, memory: JobStatus, recorded: Mapping[str, Any] | None, defaults: Images
) -> Images:
    """Return the images of a job: the template's, else those `recorded` in status.images, else the operator's
    `defaults`. While nothing of the job runs they are chosen anew, so that an upgraded operator never mixes
    versions within a running job.
    """
    fresh = memory.start_time is None or memory.phase == "Suspended"
    known = {} if fresh or recorded is None else recorded
    return Images(
        worker=_own(job, "worker") or known.get("worker") or defaults.worker,
        aggregator=_own(job, "aggregator") or known.get("aggregator") or defaults.aggregator,
    )


def _own(job: BackupSyncJob, role: Role) -> str | None:
    return container_of(job, role).get("image")
