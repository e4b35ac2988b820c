"""Names, labels, ports and paths of a job's objects on a cluster: each derived in exactly one place.

Every name follows from (job, role, rank, attempt), so that creating an object again is a no-op. Labels are by
the Kubernetes recommended labels (`app.kubernetes.io/*`) and our own domain.
"""

from typing import Final

from backupsync.lifecycle.types import ReplicaId, Role

GROUP: Final = "backupsync.dev"
VERSION: Final = "v1alpha1"
PLURAL: Final = "backupsyncjobs"

JOB_LABEL: Final = f"{GROUP}/job"
"""Name of the job an object belongs to: by it the operator's indices find the owner."""
UID_LABEL: Final = f"{GROUP}/job-uid"
ROLE_LABEL: Final = f"{GROUP}/role"
RANK_LABEL: Final = f"{GROUP}/rank"
ATTEMPT_LABEL: Final = f"{GROUP}/attempt"
"""Attempt of a worker, epoch of an aggregator."""
MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "backupsync-operator"

WIRE_PORT: Final = 5555
"""ZeroMQ port of the aggregator where `spec.aggregation.wire.port` is 0."""
HTTP_PORT: Final = 8080
"""/status, /control, /metrics and /healthz of the aggregator."""
METRICS_PORT: Final = 8081
"""/metrics of a worker."""

KEY_DIRECTORY: Final = "/var/run/backupsync/key"
"""Where the job's Secret is mounted; the key is in the file `key` (64 hex digits)."""
SCRATCH_DIRECTORY: Final = "/var/run/backupsync/scratch"
"""An emptyDir: trace, start counter, whatever must outlive a container but not its pod."""
CHECKPOINT_DIRECTORY: Final = "/var/run/backupsync/checkpoint"
"""Where the checkpoint volume is mounted in the aggregator's pod."""
PROGRAM_DIRECTORY: Final = "/program"
"""Working directory of the worker image: where the user's program is copied or mounted."""


def pod_name(job: str, replica: ReplicaId) -> str:
    """`JOB-worker-RANK-ATTEMPT`, or `JOB-aggregator-EPOCH`."""
    if replica.role == "aggregator":
        return f"{job}-aggregator-{replica.attempt}"
    return f"{job}-worker-{replica.rank}-{replica.attempt}"


def service_name(job: str) -> str:
    """The headless Service by which workers find the aggregator."""
    return f"{job}-aggregator"


def secret_name(job: str) -> str:
    """The Secret with the job's key."""
    return f"{job}-key"


def claim_name(job: str) -> str:
    """The PersistentVolumeClaim of the checkpoints."""
    return f"{job}-checkpoint"


def budget_name(job: str) -> str:
    """The PodDisruptionBudget of the workers."""
    return f"{job}-worker"


def program_name(job: str) -> str:
    """The ConfigMap that `backupsync submit` packs the program into."""
    return f"{job}-program"


def job_labels(job: str, uid: str) -> dict[str, str]:
    """Labels of every object of a job."""
    return {
        "app.kubernetes.io/name": "backupsync",
        "app.kubernetes.io/instance": job,
        "app.kubernetes.io/part-of": "backupsync",
        MANAGED_BY_LABEL: MANAGED_BY,
        JOB_LABEL: job,
        UID_LABEL: uid,
    }


def replica_labels(job: str, uid: str, replica: ReplicaId) -> dict[str, str]:
    """Labels of one pod."""
    return {
        **job_labels(job, uid),
        "app.kubernetes.io/component": replica.role,
        ROLE_LABEL: replica.role,
        RANK_LABEL: str(replica.rank),
        ATTEMPT_LABEL: str(replica.attempt),
    }


def role_selector(job: str, role: Role) -> str:
    """Label selector of all pods of one role."""
    return f"{JOB_LABEL}={job},{ROLE_LABEL}={role}"


def replica_of(labels: dict[str, str]) -> ReplicaId | None:
    """The replica that a pod's labels name; None where they name none."""
    role, rank, attempt = (labels.get(key, "") for key in (ROLE_LABEL, RANK_LABEL, ATTEMPT_LABEL))
    if role not in ("aggregator", "worker") or not (rank.isdecimal() and attempt.isdecimal()):
        return None
    return ReplicaId("aggregator" if role == "aggregator" else "worker", int(rank), int(attempt))
