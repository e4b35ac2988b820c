"""The jobs that are measured: the digits of examples/, with real pods, and one whose pods nobody runs."""

from typing import Any, Final

from place import ROOT, Place

from support.job import Job

PROGRAM: Final = "digits-program"
FAKE_NODE: Final = "bench.backupsync.dev/fake"


def digits(workers: int, backup: int, iterations: int) -> dict[str, Any]:
    """The digits, their program mounted from a ConfigMap."""
    mount = {"name": "program", "mountPath": "/program", "readOnly": True}
    worker = {
        "containers": [{"name": "worker", "volumeMounts": [mount]}],
        "volumes": [{"name": "program", "configMap": {"name": PROGRAM}}],
    }
    return _manifest("digits", workers, backup, iterations, worker, {})


def fake(name: str, workers: int, backup: int, node: str) -> dict[str, Any]:
    """A job whose pods are bound to a node that KWOK plays: no scheduler in between."""
    pod = {"nodeName": node}
    return _manifest(name, workers, backup, 1_000_000, pod, pod)


def in_namespace(place: Place, namespace: str, name: str) -> Job:
    """Make a namespace that enforces `restricted`, with the program; the handle of a job to be made there."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted", "backupsync.dev/bench": "true"}
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}
    place.api.create("namespace", None, body)
    program = {"digits.py": (ROOT / "examples" / "digits.py").read_text()}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": PROGRAM}, "data": program}
    place.api.create("configmap", namespace, config)
    return Job(place.api, namespace, name)


def _manifest(
    name: str, workers: int, backup: int, iterations: int, worker: dict[str, Any], aggregator: dict[str, Any]
) -> dict[str, Any]:
    return {
        "apiVersion": "backupsync.dev/v1alpha1",
        "kind": "BackupSyncJob",
        "metadata": {"name": name},
        "spec": {
            "program": {"entrypoint": "digits:Digits", "args": {"hidden": 64}},
            "aggregation": {"mode": "BackupSync", "workers": workers, "backupWorkers": backup},
            "training": {
                "iterations": iterations,
                "batchSize": 32,
                "seed": 1,
                "threads": 1,
                "optimizer": {"name": "SGD", "lr": 0.1, "momentum": 0.9},
            },
            "checkpoint": {"everyIterations": 1_000_000},
            "worker": {"template": {"spec": worker}},
            "aggregator": {"template": {"spec": aggregator}},
        },
    }
