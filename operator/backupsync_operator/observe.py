"""From pods as the API server has them to replicas as the planner sees them. Pure.

The container named after the role is judged, not the pod's phase: sidecars keep a finished pod Running.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec import structs

from backupsync.control import AggregatorStatus
from backupsync.exits import Exit, ExitKind, kind_of
from backupsync.kube.names import replica_of
from backupsync.lifecycle.types import Replica
from backupsync.termination import decode_ending
from backupsync_operator.nodes import Nodes, condition, node_state

_STARTING: Final = ("", "ContainerCreating", "PodInitializing")
"""Reasons to wait that pass by themselves."""
_ALIASES: Final = {"ErrImagePull": "ImagePullBackOff"}
"""The kubelet alternates between the two for one and the same image."""
_OWN_DEADLINE: Final = "DeadlineExceeded"

Pod = Mapping[str, Any]
Part = Mapping[str, Any]


def replicas(
    pods: Iterable[Pod],
    answer: AggregatorStatus | None,
    nodes: Nodes | None,
    now: float,
    grace_seconds: float,
) -> tuple[Replica, ...]:
    """Return the replicas that `pods` are. `answer` is the aggregator's newest; `nodes` by name, None where
    they may not be read; `grace_seconds` is how long a node may be out of reach.
    """
    starts = {(m.rank, m.attempt): m.start for m in (answer.members if answer is not None else ())}
    made = (_replica(pod, starts, nodes, now, grace_seconds) for pod in pods)
    return tuple(sorted((r for r in made if r is not None), key=lambda replica: replica.id))


def _replica(
    pod: Pod, starts: Mapping[tuple[int, int], int], nodes: Nodes | None, now: float, grace_seconds: float
) -> Replica | None:
    metadata, status = pod["metadata"], pod.get("status") or {}
    id_ = replica_of(metadata.get("labels") or {})
    if id_ is None:
        return None
    container = _container(status, id_.role)
    node = node_state(pod, nodes, now, grace_seconds)
    told = starts.get((id_.rank, id_.attempt), 0) if id_.role == "worker" else 0
    base = Replica(
        id=id_,
        phase="Running",
        starts=max(int(container.get("restartCount") or 0), told),
        stopping=metadata.get("deletionTimestamp") is not None,
        disruption=_disruption(status)[0],
        ready=bool(container.get("ready")) and node.ready,
        node=node.name,
        node_ready=node.ready,
        node_lost=node.lost,
    )
    return _judged(base, container.get("state") or {}, status)


def _judged(base: Replica, state: Part, status: Part) -> Replica:
    ended = state.get("terminated")
    over = status.get("phase") in ("Failed", "Succeeded")
    if ended is not None:
        return _exited(structs.replace(base, lingers=not over and _others_run(base, status)), ended, status)
    if over:
        return _never_ran(base, status)
    if "running" in state or (not state and status.get("phase") == "Running"):
        return base
    reason, message = _why_pending(state, status)
    return structs.replace(base, phase="Pending", ready=None, reason=reason, message=message)


def _exited(base: Replica, ended: Part, status: Part) -> Replica:
    """Our container ended: its code says how, unless somebody ended it from outside."""
    code, reason = int(ended.get("exitCode") or 0), str(ended.get("reason") or "")
    words = str(ended.get("message") or "").strip()
    kind = kind_of(code)
    if reason == "OOMKilled":
        kind, code = ExitKind.OUT_OF_MEMORY, int(Exit.OUT_OF_MEMORY)
    elif kind is ExitKind.OUT_OF_MEMORY and "out of memory" not in words.lower():
        kind = ExitKind.RETRYABLE  # a SIGKILL, and the kernel's out-of-memory killer did not send it
    final = decode_ending(words) if base.id.role == "aggregator" else None
    if final is not None:
        words = final.message
    disruption, said = _disruption(status)
    if not disruption and reason == "ContainerStatusUnknown":
        disruption = reason  # its node went down under it
    if disruption and kind is not ExitKind.PERMANENT:
        kind, words = ExitKind.DISRUPTED, "; ".join(filter(None, (said, words)))
    return structs.replace(
        base,
        phase="Exited",
        exit=kind,
        exit_code=code,
        reason=reason,
        message=words or _plain_end(code, reason),
        disruption=disruption,
        ready=None,
        final=final,
    )


def _others_run(base: Replica, status: Part) -> bool:
    """Whether sidecars go on: a pod's phase follows the end of its last container only after a while.

    A native sidecar (an init container that goes on) does not count: its kubelet ends it now.
    """
    others = (c for c in status.get("containerStatuses") or () if c.get("name") != base.id.role)
    return any("running" in (c.get("state") or {}) for c in others)


def _never_ran(base: Replica, status: Part) -> Replica:
    """The pod ended and our container never began: an init container failed, or a node turned it away."""
    gone = structs.replace(base, phase="Exited", ready=None)
    for container in status.get("initContainerStatuses") or ():
        ended = (container.get("state") or {}).get("terminated") or {}
        if ended.get("exitCode"):
            memory = ended.get("reason") == "OOMKilled"
            kind = ExitKind.OUT_OF_MEMORY if memory else ExitKind.RETRYABLE
            said = str(ended.get("message") or "").strip() or f"exit code {ended['exitCode']}"
            message = f"init container {container.get('name')}: {said}"
            return structs.replace(gone, exit=kind, reason=str(ended.get("reason") or ""), message=message)
    if status.get("phase") == "Succeeded":
        return structs.replace(gone, exit=ExitKind.SUCCEEDED, exit_code=0)
    reason, message = str(status.get("reason") or "Failed"), str(status.get("message") or "")
    if reason == _OWN_DEADLINE or _own_fault(status):
        return structs.replace(gone, exit=ExitKind.RETRYABLE, reason=reason, message=message, disruption="")
    disruption, said = _disruption(status)
    return structs.replace(
        gone,
        exit=ExitKind.DISRUPTED,
        reason=reason,
        message=said or message or f"the pod failed: {reason}",
        disruption=disruption or reason,
    )


def _disruption(status: Part) -> tuple[str, str]:
    """What ends or ended the pod from outside, and its message; both empty where nothing does."""
    target = condition(status, "DisruptionTarget")
    if _own_fault(status):
        return "", ""
    if status.get("phase") == "Failed" and status.get("reason") not in (None, "", _OWN_DEADLINE):
        return str(status["reason"]), str(status.get("message") or "")
    if target.get("status") == "True":
        return str(target.get("reason") or "Disrupted"), str(target.get("message") or "")
    return "", ""


def _own_fault(status: Part) -> bool:
    """Whether it was evicted for exceeding a limit of its own (disk): anywhere else it would be again."""
    message = str(status.get("message") or "")
    return status.get("reason") == "Evicted" and "exceed" in message and "limit" in message


def _why_pending(state: Part, status: Part) -> tuple[str, str]:
    """The scheduler's word, else the kubelet's about our container or an init container."""
    scheduled = condition(status, "PodScheduled")
    if scheduled.get("status") == "False":
        return str(scheduled.get("reason") or "Unschedulable"), str(scheduled.get("message") or "")
    inits = ((c.get("state") or {}).get("waiting") for c in status.get("initContainerStatuses") or ())
    for waiting in (state.get("waiting"), *inits):
        reason = str((waiting or {}).get("reason") or "")
        if reason not in _STARTING:
            return _ALIASES.get(reason, reason), str((waiting or {}).get("message") or "")
    return "", ""


def _plain_end(code: int, reason: str) -> str:
    return f"exit code {code} ({reason})" if reason and reason not in ("Error", "Completed") else ""


def _container(status: Part, name: str) -> Part:
    found = (c for c in status.get("containerStatuses") or () if c.get("name") == name)
    return next(found, {})
