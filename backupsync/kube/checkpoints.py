"""Where a job's checkpoints lie on a cluster, and whether they outlive the aggregator's pod. Pure.

Three places: a claim of the job's own (`checkpoint.volumeClaimTemplate`), a volume that the user's aggregator
template mounts, or, where neither is given, an emptyDir that ends with the pod.
"""

import posixpath
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from backupsync.kube.names import CHECKPOINT_DIRECTORY
from backupsync.spec import BackupSyncJob

_EPHEMERAL = ("emptyDir", "ephemeral")
"""Volumes that end with their pod."""


class Place(NamedTuple):
    """Where checkpoints are written, as the aggregator's container sees it."""

    kind: Literal["Claim", "Template", "Scratch"]
    directory: str
    durable: bool
    message: str
    """In words, for the Accepted condition."""


def place_of(job: BackupSyncJob, uid: str) -> Place:
    """Return where `job`'s checkpoints lie.

    In a claim every job has a directory of its own, by its uid: a job created anew under the same name
    neither overwrites the retained model nor goes on from it in silence.
    """
    path, claim = job.spec.checkpoint.path, job.spec.checkpoint.volume_claim_template
    below = "" if path is None or path.startswith("/") else path
    mount = _mount_of(job, path if path and path.startswith("/") else CHECKPOINT_DIRECTORY)
    if mount is not None:
        directory = path if path and path.startswith("/") else _join(CHECKPOINT_DIRECTORY, below)
        durable = mount not in _passing(job)
        said = f"checkpoints go to {directory} on the template's volume {mount}"
        return Place("Template", directory, durable, said if durable else f"{said}, which {_ENDS}")
    if claim is not None:
        directory = _join(CHECKPOINT_DIRECTORY, below, uid)
        return Place("Claim", directory, True, f"checkpoints go to {directory} on the job's own claim")
    said = (
        f"checkpoints go to an emptyDir, which {_ENDS}; set spec.checkpoint.volumeClaimTemplate to keep them"
    )
    return Place("Scratch", _join(CHECKPOINT_DIRECTORY, below), False, said)


def path_problem(job: BackupSyncJob) -> str | None:
    """Return what is wrong with `spec.checkpoint.path` on a cluster, and its remedy; None for nothing."""
    path = job.spec.checkpoint.path
    if path is None:
        return None
    said = f"spec.checkpoint.path = {path!r}:"
    if ".." in path.split("/") or path.startswith("~"):
        return f"{said} on a cluster it must be a plain path, relative to the checkpoint volume or absolute"
    if path.startswith("/") and _mount_of(job, path) is None:
        return (
            f"{said} lies under no volumeMount of the container `aggregator` in spec.aggregator.template; "
            "mount a volume there, or give a relative path and a spec.checkpoint.volumeClaimTemplate"
        )
    return None


_ENDS = "ends with the aggregator's pod: training cannot go on without it"


def _join(*parts: str) -> str:
    return posixpath.normpath(posixpath.join(*(part for part in parts if part)))


def _pod_spec(job: BackupSyncJob) -> dict[str, Any]:
    return (job.spec.aggregator.template or {}).get("spec") or {}


def _mount_of(job: BackupSyncJob, path: str) -> str | None:
    """Name of the template's volume that `path` lies on."""
    for container in _pod_spec(job).get("containers") or ():
        if container.get("name") == "aggregator":
            return _deepest(container.get("volumeMounts") or (), posixpath.normpath(path))
    return None


def _deepest(mounts: Iterable[dict[str, Any]], path: str) -> str | None:
    found = [
        (len(at), str(mount.get("name")))
        for mount in mounts
        if (at := posixpath.normpath(str(mount.get("mountPath")))) == path
        or path.startswith(at.rstrip("/") + "/")
    ]
    return max(found)[1] if found else None


def _passing(job: BackupSyncJob) -> set[str]:
    """Names of the template's volumes that end with the pod."""
    volumes = _pod_spec(job).get("volumes") or ()
    return {str(v.get("name")) for v in volumes if any(kind in v for kind in _EPHEMERAL)}
