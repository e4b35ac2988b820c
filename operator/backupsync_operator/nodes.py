"""Whether a pod's node is out of reach, judged by the node where it may be read, else by the pod. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

LATE_SECONDS: Final = 60.0
"""How long past its grace period a pod may go on ending before it is given up."""

Nodes = Mapping[str, Mapping[str, Any]]
"""Node objects by name."""


class NodeState(NamedTuple):
    """A pod's node."""

    name: str
    """Empty while the pod has none."""
    ready: bool
    """It answers, as far as anybody can say."""
    lost: bool
    """It has been out of reach for the grace period, or a pod on it cannot be ended."""


def node_state(pod: Mapping[str, Any], nodes: Nodes | None, now: float, grace_seconds: float) -> NodeState:
    """Return the state of the node of `pod` at `now` (Unix seconds). `nodes` is None where nodes are out of
    sight (an operator of some namespaces): then only an end that is long overdue tells.
    """
    name = (pod.get("spec") or {}).get("nodeName") or ""
    if not name:
        return NodeState("", ready=True, lost=False)
    status = pod.get("status") or {}
    overdue = _overdue(pod, now)
    if status.get("reason") == "NodeLost" or status.get("phase") == "Unknown":
        return NodeState(name, ready=False, lost=True)
    node = None if nodes is None else nodes.get(name)  # one too new for our informer is not lost
    since = None if node is None else silent_since(node)
    if since is None:
        return NodeState(name, ready=not overdue, lost=overdue)
    return NodeState(name, ready=False, lost=overdue or now >= since + grace_seconds)


def silent_since(node: Mapping[str, Any]) -> float | None:
    """Unix time since which nothing is heard of `node`; None while it answers."""
    ready = condition(node.get("status") or {}, "Ready")
    if ready.get("status") != "Unknown":
        return None
    return seconds_of(ready.get("lastTransitionTime")) or 0.0


def condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """The condition of type `kind`; empty where there is none."""
    return next((c for c in status.get("conditions") or () if c.get("type") == kind), {})


def seconds_of(time: str | None) -> float | None:
    """Unix seconds of an RFC 3339 time."""
    return None if not time else datetime.fromisoformat(time).timestamp()


def _overdue(pod: Mapping[str, Any], now: float) -> bool:
    # A pod's deletionTimestamp is the end of its grace period (API reference, ObjectMeta).
    due = seconds_of(pod["metadata"].get("deletionTimestamp"))
    return due is not None and now > due + LATE_SECONDS
