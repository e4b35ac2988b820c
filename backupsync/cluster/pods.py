"""The pods of a job as the command line looks at them: whose they are, and what keeps them from running."""

from collections.abc import Iterator
from typing import Any, Final

from msgspec import Struct

from backupsync.cluster import paths
from backupsync.cluster.connection import Connection
from backupsync.kube import names
from backupsync.lifecycle.types import ReplicaId

Pod = dict[str, Any]
_UNREMARKABLE: Final = ("ContainerCreating", "PodInitializing")


class PodState(Struct, frozen=True, kw_only=True):
    """How a pod's own container stands."""

    phase: str
    """Pending, Running, Succeeded, Failed or Unknown; Terminating while it is being deleted."""
    problem: str = ""
    """What keeps it from running, or why it ended; empty where nothing is wrong."""
    ended: bool = False
    """Its container has ended, or its pod is over: no more log comes."""
    begun: bool = False
    """Its container has started at least once: there is a log."""


class Endpoint(Struct, frozen=True, kw_only=True):
    """Where a pod serves /metrics."""

    address: str
    """IP address of the pod."""
    port: int
    labels: dict[str, str]
    """role; of a worker rank and attempt too."""


def list_pods(connection: Connection, namespace: str, job: str) -> list[tuple[ReplicaId, Pod]]:
    """Return the pods of a job, by role, rank and attempt."""
    query = (("labelSelector", f"{names.JOB_LABEL}={job},{names.ROLE_LABEL}"),)
    found = connection.request("GET", paths.core(namespace, "pods"), f"pods of job {job}", query=query)
    pods = ((names.replica_of(pod["metadata"].get("labels") or {}), pod) for pod in found.get("items") or [])
    return sorted(((replica, pod) for replica, pod in pods if replica is not None), key=lambda item: item[0])


def state_of(replica: ReplicaId, pod: Pod) -> PodState:
    """Judge a pod by its container named after the role (a sidecar may outlive it)."""
    status = pod.get("status") or {}
    phase = str(status.get("phase") or "Pending")
    container = _container(replica, status)
    state = container.get("state") or {}
    ended = "terminated" in state or phase in ("Succeeded", "Failed")
    begun = "running" in state or "terminated" in state or bool(container.get("restartCount"))
    problem = "; ".join(_problems(status, state))
    if pod["metadata"].get("deletionTimestamp") and not ended:
        phase = "Terminating"
    return PodState(phase=phase, problem=problem, ended=ended, begun=begun)


def is_running(replica: ReplicaId, pod: Pod) -> bool:
    """Whether the pod's own container runs."""
    return "running" in (_container(replica, pod.get("status") or {}).get("state") or {})


def endpoints_of(pods: list[tuple[ReplicaId, Pod]]) -> list[Endpoint]:
    """Return where those that run serve /metrics."""
    found = []
    for replica, pod in pods:
        address = (pod.get("status") or {}).get("podIP")
        if not address or not is_running(replica, pod):
            continue
        labels: dict[str, str] = {"role": replica.role}
        if replica.role == "worker":
            labels |= {"rank": str(replica.rank), "attempt": str(replica.attempt)}
        port = names.METRICS_PORT if replica.role == "worker" else names.HTTP_PORT
        shown = f"[{address}]" if ":" in address else address
        found.append(Endpoint(address=shown, port=port, labels=labels))
    return found


def _container(replica: ReplicaId, status: dict[str, Any]) -> dict[str, Any]:
    statuses = status.get("containerStatuses") or []
    return next((c for c in statuses if c.get("name") == replica.role), {})


def _problems(status: dict[str, Any], state: dict[str, Any]) -> Iterator[str]:
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            yield f"{condition.get('reason')}: {condition.get('message')}"
    if status.get("reason"):  # such as Evicted or NodeLost
        yield f"{status['reason']}: {status.get('message', '')}".rstrip(": ")
    waiting, terminated = state.get("waiting") or {}, state.get("terminated") or {}
    if waiting and waiting.get("reason") not in _UNREMARKABLE:
        yield f"{waiting.get('reason')}: {waiting.get('message', '')}".rstrip(": ")
    if terminated and terminated.get("exitCode") != 0:
        last = str(terminated.get("message") or "").strip().splitlines()
        yield f"{terminated.get('reason')} (exit code {terminated.get('exitCode')})" + (
            f": {last[-1]}" if last else ""
        )
    for each in status.get("initContainerStatuses") or []:
        stuck = (each.get("state") or {}).get("waiting") or {}
        if stuck and stuck.get("reason") not in _UNREMARKABLE:
            yield f"init container {each.get('name')}: {stuck.get('reason')}: {stuck.get('message', '')}"
