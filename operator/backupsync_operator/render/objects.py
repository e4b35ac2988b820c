"""A job's objects beside its pods: Service, key Secret, checkpoint claim, and the workers' budget."""

import base64
from typing import Any

from backupsync.kube import names
from backupsync_operator.render.context import JobContext


def service(context: JobContext, epoch: int) -> dict[str, Any]:
    """The headless Service by which workers find the aggregator of `epoch`, also before it is ready."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": context.metadata(
            names.service_name(context.name), {"app.kubernetes.io/component": "aggregator"}
        ),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": service_selector(context, epoch),
            "ports": [
                {"name": "wire", "port": wire_port(context), "targetPort": "wire", "protocol": "TCP"},
                {"name": "http", "port": names.HTTP_PORT, "targetPort": "http", "protocol": "TCP"},
            ],
        },
    }


def service_selector(context: JobContext, epoch: int) -> dict[str, str]:
    """The labels of the aggregator in office: a new epoch changes nothing else of the Service."""
    return {
        names.JOB_LABEL: context.name,
        names.UID_LABEL: context.uid,
        names.ROLE_LABEL: "aggregator",
        names.ATTEMPT_LABEL: str(epoch),
    }


def wire_port(context: JobContext) -> int:
    """The aggregator's ZeroMQ port."""
    return context.job.spec.aggregation.wire.port or names.WIRE_PORT


def secret(context: JobContext, key_hex: str) -> dict[str, Any]:
    """The Secret with the job's key (64 hex digits): created once, never read back."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": context.metadata(names.secret_name(context.name)),
        "type": "Opaque",
        "immutable": True,
        "data": {"key": base64.b64encode(key_hex.encode("ascii")).decode("ascii")},
    }


def claim(context: JobContext) -> dict[str, Any] | None:
    """The claim of the checkpoint volume, None where the job has none of its own.

    It has no owner unless `retention` is Delete: neither TTL nor `kubectl delete` may take the model.
    """
    template = context.job.spec.checkpoint.volume_claim_template
    if template is None or context.place.kind != "Claim":
        return None
    owned = context.job.spec.checkpoint.retention == "Delete"
    given = template.get("metadata") or {}
    metadata = context.metadata(names.claim_name(context.name), owned=owned)
    metadata["labels"] = {**(given.get("labels") or {}), **metadata["labels"]}
    if given.get("annotations"):
        metadata["annotations"] = dict(given["annotations"])
    spec = {"accessModes": ["ReadWriteOnce"], **(template.get("spec") or {})}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def budget(context: JobContext) -> dict[str, Any] | None:
    """The PodDisruptionBudget: at least N workers stay, so b may be drained at a time; None with b = 0."""
    aggregation = context.job.spec.aggregation
    if aggregation.backup_workers == 0:
        return None
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": context.metadata(
            names.budget_name(context.name), {"app.kubernetes.io/component": "worker"}
        ),
        "spec": {
            "minAvailable": aggregation.workers,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {
                "matchLabels": {
                    names.JOB_LABEL: context.name,
                    names.UID_LABEL: context.uid,
                    names.ROLE_LABEL: "worker",
                }
            },
        },
    }
