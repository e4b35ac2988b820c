"""From pods as the API server has them to replicas as the planner sees them. Pure.

The container named after the role is judged, not the pod's phase: sidecars keep a finished pod Running.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from backupsync.control import AggregatorStatus
from backupsync.exits import Exit, ExitKind, kind_of
from backupsync.kube.names import replica_of
from backupsync.lifecycle.types import Replica, ReplicaId

DISRUPTIONS = frozenset({"Evicted", "NodeShutdown", "Terminated", "Preempting", "UnexpectedAdmissionError"})
"""Reasons in a failed pod's status that say: ended from outside."""
_NOT_WAITING = ("ContainerCreating", "PodInitializing")
_LATE_SECONDS = 30.0
"""How long past its grace period a pod may be ending before its node is taken for lost."""

Pod = Mapping[str, Any]


def replicas(
    pods: Iterable[Pod],
    answer: AggregatorStatus | None,
    nodes: Mapping[str, Mapping[str, Any]] | None,
    now: float,
    grace_seconds: float,
) -> tuple[Replica, ...]:
    """Return the replicas that `pods` are. `answer` is the aggregator's newest; `nodes` by name, None where
    they may not be read; `grace_seconds` is how long a node may be out of reach.
    """
    starts = {(m.rank, m.attempt): m.start for m in (answer.members if answer is not None else ())}
    made = [_replica(pod, starts, nodes, now, grace_seconds) for pod in pods]
    return tuple(sorted((r for r in made if r is not None), key=lambda replica: replica.id))


def _replica(
    pod: Pod,
    starts: dict[tuple[int, int], int],
    nodes: Mapping[str, Mapping[str, Any]] | None,
    now: float,
    grace_seconds: float,
) -> Replica | None:
    metadata = pod["metadata"]
    id_ = replica_of(metadata.get("labels") or {})
    if id_ is None:
        return None
    told = starts.get((id_.rank, id_.attempt), 0) if id_.role == "worker" else 0
    state, count = _container(pod, id_.role)
    base = Replica(
        id=id_,
        phase="Running",
        starts=max(count, told),
        stopping=metadata.get("deletionTimestamp") is not None,
        node=(pod.get("spec") or {}).get("nodeName") or "",
        node_lost=_node_lost(pod, nodes, now, grace_seconds),
    )
    return _judged(pod, base, state)


def _judged(pod: Pod, base: Replica, state: Mapping[str, Any]) -> Replica:
    status = pod.get("status") or {}
    ended = state.get("terminated")
    disruption = _disruption(status)
    if ended is not None or status.get("phase") in ("Failed", "Succeeded"):
        return _exited(base, ended, status, disruption)
    failed_init = _failed_init(status)
    if failed_init is not None:
        return _exited(base, failed_init, status, disruption)
    if "running" in state:
        return base
    reason, message = _pending(status, state)
    return msgspec.structs.replace(base, phase="Pending", reason=reason, message=message)


def _exited(
    base: Replica,
    ended: Mapping[str, Any] | None,
    status: Mapping[str, Any],
    disruption: tuple[str, str] | None,
) -> Replica:
    code = None if ended is None else int(ended.get("exitCode", 1))
    words = str((ended or {}).get("message") or "").strip()
    kind = ExitKind.RETRYABLE if code is None else kind_of(code)
    reason = str((ended or {}).get("reason") or "")
    if code is None and status.get("phase") == "Succeeded":
        kind = ExitKind.SUCCEEDED
    if reason == "OOMKilled":
        kind, code = ExitKind.OUT_OF_MEMORY, Exit.OUT_OF_MEMORY
    elif kind is ExitKind.OUT_OF_MEMORY:
        kind = ExitKind.RETRYABLE  # SIGKILL from somebody else: the kubelet would have said OOMKilled
    if disruption is not None and kind not in (ExitKind.SUCCEEDED, ExitKind.PERMANENT):
        kind, (reason, said) = ExitKind.DISRUPTED, disruption
        words = said or words
    final = _final(words) if base.id.role == "aggregator" else None
    return msgspec.structs.replace(
        base, phase="Exited", exit=kind, exit_code=code, reason=reason, message=words, final=final
    )


def _disruption(status: Mapping[str, Any]) -> tuple[str, str] | None:
    target = _condition(status, "DisruptionTarget")
    if status.get("phase") == "Failed" and status.get("reason") in DISRUPTIONS:
        return str(status["reason"]), str(status.get("message") or "")
    if target.get("status") == "True":
        return str(target.get("reason") or "Disrupted"), str(target.get("message") or "")
    return None


def _failed_init(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if status.get("phase") != "Failed":
        return None
    for container in status.get("initContainerStatuses") or ():
        ended = (container.get("state") or {}).get("terminated")
        if ended is not None and ended.get("exitCode"):
            found: Mapping[str, Any] = ended
            return found
    return None


def _pending(status: Mapping[str, Any], state: Mapping[str, Any]) -> tuple[str, str]:
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") == "False":
        return str(scheduled.get("reason") or "Unschedulable"), str(scheduled.get("message") or "")
    waiting = [state.get("waiting")]
    waiting += [(c.get("state") or {}).get("waiting") for c in status.get("initContainerStatuses") or ()]
    for found in waiting:
        if found and found.get("reason") not in _NOT_WAITING:
            return str(found.get("reason") or "Waiting"), str(found.get("message") or "")
    return "", ""


def _node_lost(
    pod: Pod, nodes: Mapping[str, Mapping[str, Any]] | None, now: float, grace_seconds: float
) -> bool:
    name = (pod.get("spec") or {}).get("nodeName")
    if not name:
        return False
    if nodes is not None:
        node = nodes.get(name)
        if node is None:
            return _overdue(pod, now)  # deleted, or too new for our informer
        ready = _condition(node.get("status") or {}, "Ready")
        since = seconds_of(ready.get("lastTransitionTime"))
        return bool(ready) and ready.get("status") == "Unknown" and now - (since or now) >= grace_seconds
    return _overdue(pod, now)


def _overdue(pod: Pod, now: float) -> bool:
    """Without sight of nodes: a pod whose end has long been due, with nobody to confirm it."""
    metadata = pod["metadata"]
    due = seconds_of(metadata.get("deletionTimestamp"))
    return due is not None and now > due + _LATE_SECONDS


def _container(pod: Pod, name: str) -> tuple[Mapping[str, Any], int]:
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        if container.get("name") == name:
            return container.get("state") or {}, int(container.get("restartCount") or 0)
    return {}, 0


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    return next((c for c in status.get("conditions") or () if c.get("type") == kind), {})


def _final(words: str) -> AggregatorStatus | None:
    """The status that an aggregator leaves as its last line, if it did."""
    last = words.splitlines()[-1] if words else ""
    if not last.startswith("{"):
        return None
    try:
        return msgspec.json.decode(last, type=AggregatorStatus)
    except msgspec.MsgspecError:
        return None


def seconds_of(time: str | None) -> float | None:
    """Unix seconds of an RFC 3339 time."""
    return None if not time else datetime.fromisoformat(time).timestamp()


def epoch_of(pods: Iterable[Pod]) -> int:
    """Highest epoch of any aggregator pod there is, 0 for none."""
    found = (replica_of(pod["metadata"].get("labels") or {}) for pod in pods)
    return max((r.attempt for r in found if isinstance(r, ReplicaId) and r.role == "aggregator"), default=0)
