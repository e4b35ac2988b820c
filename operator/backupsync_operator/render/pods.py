"""The pod of one replica: the user's template whole, and around it what makes it a member of the job.

The template wins wherever it speaks, but for: restartPolicy (a new attempt is a new pod), our labels, the
variables BACKUPSYNC_*, and volumes and mounts of the names and places that are ours.
"""

import copy
from typing import Any

from backupsync.kube import names
from backupsync.lifecycle.types import ReplicaId, Role
from backupsync_operator.render.containers import USER, complete, volumes
from backupsync_operator.render.context import JobContext
from backupsync_operator.render.launches import environment, threads_of
from backupsync_operator.templates import container_of, template_of

_GRACE_SECONDS = {"worker": 30, "aggregator": 60}
"""Time to end by themselves; the aggregator writes a checkpoint in it."""


def pod(context: JobContext, replica: ReplicaId) -> dict[str, Any]:
    """Return the pod of `replica`."""
    template = copy.deepcopy(dict(template_of(context.job, replica.role)))
    spec: dict[str, Any] = template.get("spec") or {}
    spec["restartPolicy"] = "Never"
    spec.setdefault("enableServiceLinks", False)
    spec.setdefault("automountServiceAccountToken", False)
    spec.setdefault("terminationGracePeriodSeconds", _GRACE_SECONDS[replica.role])
    spec["securityContext"] = {
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        **(spec.get("securityContext") or {}),
    }
    containers = spec["containers"] = spec.get("containers") or []
    if not any(container.get("name") == replica.role for container in containers):
        containers.insert(0, {"name": replica.role})
    threads = {role: _threads(context, role) for role in ("worker", "aggregator")}
    variables = environment(context, replica, threads)
    for index, container in enumerate(containers):
        if container.get("name") == replica.role:
            containers[index] = complete(context, replica.role, container, spec, variables)
    spec["volumes"] = volumes(context, replica.role, spec)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _metadata(context, replica, template.get("metadata") or {}),
        "spec": spec,
    }


def _threads(context: JobContext, role: Role) -> int:
    if role == "worker" and context.job.spec.training.threads:
        return context.job.spec.training.threads
    return threads_of(container_of(context.job, role))


def _metadata(context: JobContext, replica: ReplicaId, given: dict[str, Any]) -> dict[str, Any]:
    labels = {
        **context.inherited_labels(),
        **(given.get("labels") or {}),
        **names.replica_labels(context.name, context.uid, replica),
    }
    made = {
        "name": names.pod_name(context.name, replica),
        "namespace": context.namespace,
        "labels": labels,
        "ownerReferences": [context.owner()],
    }
    annotations = {**context.inherited_annotations(), **(given.get("annotations") or {})}
    if annotations:
        made["annotations"] = annotations
    return made
