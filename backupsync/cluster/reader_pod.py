"""The short-lived pod that reads a checkpoint volume: as careful as the aggregator's. Pure.

It ends by itself after an hour, should its client be killed; the job owns it.
"""

from typing import Any, Final

from backupsync.cluster.connection import Object
from backupsync.cluster.errors import ClusterError
from backupsync.kube import names
from backupsync.kube.checkpoints import Place
from backupsync.spec import BackupSyncJob

CONTAINER: Final = "reader"
_USER: Final = 65532
_LONGEST_SECONDS: Final = 3600
"""The pod ends by itself after this long, should its client be killed."""
_TAKEN: Final = ("nodeSelector", "tolerations", "imagePullSecrets", "runtimeClassName", "schedulerName")
"""Fields of the aggregator's template that also decide where the volume can be mounted."""


def reader_pod(job: Object, place: Place, name: str, image: str) -> Object:
    """Return the pod that mounts the checkpoints of `job` (the custom resource) read-only, and waits."""
    meta = job["metadata"]
    template = _pod_spec(job)
    spec: Object = {key: template[key] for key in _TAKEN if key in template}
    security = template.get("securityContext") or {}
    defaults = {"fsGroup": _USER, "fsGroupChangePolicy": "OnRootMismatch"}
    volume, mount = _volume(job, place)
    spec |= {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "activeDeadlineSeconds": _LONGEST_SECONDS,
        "terminationGracePeriodSeconds": 0,
        "securityContext": defaults | security,
        "containers": [_container(image, mount, security)],
        "volumes": [volume],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": meta["namespace"],
            "labels": {
                "app.kubernetes.io/name": "backupsync",
                "app.kubernetes.io/instance": meta["name"],
                "app.kubernetes.io/component": "get-model",
                names.MANAGED_BY_LABEL: "backupsync-cli",
            },
        }
        | _owner(job),
        "spec": spec,
    }


def parsed(job: Object) -> BackupSyncJob:
    """Read the spec of a custom resource; the API server has checked it."""
    meta = {key: job["metadata"][key] for key in ("name", "namespace")}
    kept = {"apiVersion": job["apiVersion"], "kind": job["kind"], "metadata": meta, "spec": job["spec"]}
    return BackupSyncJob.model_validate(kept)


def _container(image: str, mount: Object, security: Object) -> Object:
    safe: Object = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", f"import time; time.sleep({_LONGEST_SECONDS})"],
        "volumeMounts": [mount],
        "resources": {
            "requests": {"cpu": "10m", "memory": "64Mi"},
            "limits": {"cpu": "1", "memory": "512Mi"},
        },
        "securityContext": {key: value for key, value in safe.items() if key not in security},
    }


def _volume(job: Object, place: Place) -> tuple[Object, Object]:
    """Return the volume, and its mount at the place that the aggregator sees it at."""
    if place.kind == "Claim":
        claim = {"claimName": names.claim_name(job["metadata"]["name"]), "readOnly": True}
        volume = {"name": "checkpoint", "persistentVolumeClaim": claim}
        return volume, {"name": "checkpoint", "mountPath": names.CHECKPOINT_DIRECTORY, "readOnly": True}
    template = _pod_spec(job)
    containers = template.get("containers") or []
    ours: Object = next((c for c in containers if c.get("name") == "aggregator"), {})
    mounts = [m for m in ours.get("volumeMounts") or [] if _holds(m, place.directory)]
    mount = max(mounts, key=lambda m: len(m["mountPath"]), default=None)
    volumes = [v for v in template.get("volumes") or [] if mount and v.get("name") == mount["name"]]
    if mount is None or not volumes:
        raise ClusterError(f"no volume of spec.aggregator.template holds {place.directory}")
    return volumes[0], {**mount, "readOnly": True}


def _holds(mount: Object, directory: str) -> bool:
    at = str(mount.get("mountPath", "")).rstrip("/")
    return directory == at or directory.startswith(f"{at}/")


def _owner(job: Object) -> dict[str, Any]:
    """The job owns its reader, so that it goes with it; nobody owns the reader of a job that is gone."""
    meta = job["metadata"]
    if not meta.get("uid"):
        return {}
    owner = {key: job[key] for key in ("apiVersion", "kind")} | {key: meta[key] for key in ("name", "uid")}
    return {"ownerReferences": [owner | {"blockOwnerDeletion": False}]}


def _pod_spec(job: Object) -> Object:
    found: Object = ((job["spec"].get("aggregator") or {}).get("template") or {}).get("spec") or {}
    return found
