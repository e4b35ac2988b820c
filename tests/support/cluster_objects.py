"""Objects of a job as a cluster holds them."""

from backupsync.kube import names
from backupsync.lifecycle.types import ReplicaId

JOBS = "/apis/backupsync.dev/v1alpha1/namespaces/team/backupsyncjobs"
JOB = f"{JOBS}/digits"
PODS = "/api/v1/namespaces/team/pods"


def job_object(state=None, name="digits", **status):
    document = {
        "apiVersion": "backupsync.dev/v1alpha1",
        "kind": "BackupSyncJob",
        "metadata": {
            "name": name,
            "namespace": "team",
            "uid": f"uid-{name}",
            "generation": 2,
            "creationTimestamp": "2026-01-02T03:04:05Z",
        },
        "spec": {
            "program": {"entrypoint": "digits:Digits"},
            "aggregation": {"workers": 2, "backupWorkers": 1},
            "training": {"iterations": 20, "batchSize": 8, "optimizer": {"name": "SGD", "lr": 0.1}},
        },
    }
    return document | ({"status": {"state": state, "observedGeneration": 2} | status} if state else {})


def pod_object(role="worker", rank=0, attempt=1, state="running", job="digits"):
    """A pod; state: waiting, running, terminated."""
    replica = ReplicaId(role, rank, attempt)
    phase = {"waiting": "Pending", "running": "Running", "terminated": "Failed"}[state]
    told = {
        "waiting": {"reason": "ContainerCreating"},
        "running": {},
        "terminated": {"exitCode": 1, "reason": "Error"},
    }
    return {
        "metadata": {"labels": names.replica_labels(job, f"uid-{job}", replica)},
        "status": {"phase": phase, "containerStatuses": [{"name": role, "state": {state: told[state]}}]},
    }


def pod_path(role="worker", rank=0, attempt=1, job="digits"):
    return f"{PODS}/{names.pod_name(job, ReplicaId(role, rank, attempt))}"
