"""Manifests of the tests' jobs: defaults that train within seconds; a test merges in what it is about."""

from typing import Any

from backupsync.kube import names
from support.api import Object

PROGRAMS = "programs"
"""ConfigMap with e2e/programs/, in every test's namespace."""
LONG = 1_000_000
"""Iterations of a job that goes on until the test has seen enough."""


def merged(base: Object, changes: Object) -> Object:
    """Merge dicts into one another, as a JSON merge patch: None removes, lists are replaced."""
    result = dict(base)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def job_manifest(name: str, **changes: Any) -> Object:
    """Return a manifest; `changes` are sections of the spec, merged into the defaults."""
    spec = {
        "program": {"entrypoint": "linear:Linear", "args": {}},
        "aggregation": {
            "workers": 2,
            "backupWorkers": 0,
            "wire": {"heartbeatSeconds": 0.5, "timeoutSeconds": 5},
        },
        "training": {
            "iterations": 20,
            "batchSize": 8,
            "threads": 1,
            "optimizer": {"name": "SGD", "lr": 0.05},
        },
        "checkpoint": {"everyIterations": 10},
        "worker": {"template": worker_template()},
        "aggregator": {"template": pod_template("aggregator")},
    }
    return {
        "apiVersion": f"{names.GROUP}/{names.VERSION}",
        "kind": "BackupSyncJob",
        "metadata": {"name": name},
        "spec": merged(spec, changes),
    }


def endless(step_seconds: float = 0.05) -> Object:
    """Sections of a job that trains until it is deleted, at a pace that leaves the machine its breath."""
    return {
        "program": {"entrypoint": "linear:Linear", "args": {"step_seconds": step_seconds}},
        "training": {"iterations": LONG},
    }


def pod_template(role: str, pod: Object | None = None, container: Object | None = None) -> Object:
    """Return a pod template whose container `role` is ours; `pod` and `container` are merged in."""
    small = {"resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}}
    spec = {"containers": [merged({"name": role, **small}, container or {})]}
    return {"spec": merged(spec, pod or {})}


def worker_template(pod: Object | None = None, container: Object | None = None) -> Object:
    """Return a worker's template with e2e/programs/ mounted where programs are looked for."""
    mounted = {
        "name": "worker",
        "volumeMounts": [{"name": PROGRAMS, "mountPath": names.PROGRAM_DIRECTORY}],
        **(container or {}),
    }
    volumes = {"volumes": [{"name": PROGRAMS, "configMap": {"name": PROGRAMS}}]}
    return pod_template("worker", merged(volumes, pod or {}), mounted)


def spread(job: str, role: str = "worker") -> Object:
    """Pod fields that spread the workers of a job evenly over the nodes."""
    chosen = {"matchLabels": {names.JOB_LABEL: job, names.ROLE_LABEL: role}}
    constraint = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": chosen,
    }
    return {"topologySpreadConstraints": [constraint]}


def on_node(node: str) -> Object:
    """Pod fields that admit one node only."""
    return {"nodeSelector": {"kubernetes.io/hostname": node}}


def rather_on(node: str) -> Object:
    """Pod fields that prefer a node as long as it is there."""
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}
    wish = [{"weight": 100, "preference": term}]
    return {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": wish}}}
