"""What the informers have seen: jobs and their children, by job, trimmed to what is read.

A change that touches nothing we read wakes nobody: above all not our own writes of a job's status. The watch
may miss the deletion of an object while it is being set up anew; `prune` drops what a list no longer holds.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from backupsync.kube import names
from backupsync_operator.kinds import CHILDREN, JOBS, NODES, PODS, Kind
from backupsync_operator.queue import Key

Object = dict[str, Any]

_METADATA: Final = (
    "name",
    "namespace",
    "uid",
    "generation",
    "labels",
    "annotations",
    "ownerReferences",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_POD_SPEC: Final = ("nodeName", "terminationGracePeriodSeconds")
_POD_STATUS: Final = (
    "phase",
    "reason",
    "message",
    "conditions",
    "podIP",
    "startTime",
    "containerStatuses",
    "initContainerStatuses",
)


class Store:
    """The newest state of every job and child. For one event loop."""

    def __init__(self) -> None:
        self.nodes: dict[str, Object] = {}
        self._held: dict[Kind, dict[Key, dict[str, Object]]] = {kind: {} for kind in (JOBS, *CHILDREN)}

    @property
    def jobs(self) -> list[Key]:
        """Every job."""
        return list(self._held[JOBS])

    def job(self, key: Key) -> Object | None:
        """The job of this key, if there is one."""
        return self._held[JOBS].get(key, {}).get(key.name)

    def put(self, kind: Kind, seen: Object) -> tuple[Key, ...]:
        """Take in an object as it is now; return the jobs that must be looked at for it."""
        kept = trimmed(kind, seen)
        if kind is NODES:
            return self._put_node(kept)
        key = key_of(kind, kept)
        if key is None:
            return ()
        place, name = self._held[kind].setdefault(key, {}), kept["metadata"]["name"]
        old = place.get(name)
        if old is not None and _version(old) > _version(kept):
            return ()
        place[name] = kept
        return () if old is not None and _substance(kind, old) == _substance(kind, kept) else (key,)

    def remove(self, kind: Kind, seen: Object) -> tuple[Key, ...]:
        """Take out an object that was deleted; return the jobs that must be looked at for it."""
        meta = seen["metadata"]
        if kind is NODES:
            self.nodes.pop(meta["name"], None)
            return tuple(self._on_node(meta["name"]))
        key = key_of(kind, seen)
        if key is None:
            return ()
        place = self._held[kind].get(key, {})
        held = place.get(meta["name"])
        if held is None or held["metadata"].get("uid") != meta.get("uid"):
            return ()
        del place[meta["name"]]
        if not place:
            del self._held[kind][key]
        return (key,)

    def prune(self, kind: Kind, namespace: str | None, before: set[str], found: set[str]) -> tuple[Key, ...]:
        """Take out objects of `namespace` (None: all) held `before` a list (uids) and not `found` in it."""
        gone = [
            held
            for held in list(self.objects(kind))
            if held["metadata"]["uid"] in before - found
            and namespace in (None, held["metadata"].get("namespace"))
        ]
        return tuple(dict.fromkeys(key for held in gone for key in self.remove(kind, held)))

    def objects(self, kind: Kind) -> Iterator[Object]:
        """Every object of a kind."""
        if kind is NODES:
            return iter(list(self.nodes.values()))
        return (held for place in self._held[kind].values() for held in place.values())

    def children(self, kind: Kind, key: Key) -> dict[str, Object]:
        """The children of one kind that carry the job's label, by name. Do not change it."""
        return self._held[kind].get(key, {})

    def owned(self, kind: Kind, key: Key, uid: str) -> dict[str, Object]:
        """Those of them that the job of this `uid` owns: of no earlier one, nor of a stranger."""
        return {name: held for name, held in self.children(kind, key).items() if owned_by(held, uid)}

    def _put_node(self, kept: Object) -> tuple[Key, ...]:
        name = kept["metadata"]["name"]
        old, self.nodes[name] = self.nodes.get(name), kept
        return () if old is not None and _still(old) == _still(kept) else tuple(self._on_node(name))

    def _on_node(self, name: str) -> Iterable[Key]:
        places = self._held[PODS].items()
        return [key for key, place in places if any(_node(held) == name for held in place.values())]


def owned_by(held: Object, uid: str) -> bool:
    """Whether the object of this `uid` owns an object."""
    owners = held["metadata"].get("ownerReferences") or []
    return any(owner.get("uid") == uid for owner in owners)


def key_of(kind: Kind, seen: Object) -> Key | None:
    """The job that an object is, or belongs to by its label."""
    meta = seen["metadata"]
    name = meta["name"] if kind is JOBS else (meta.get("labels") or {}).get(names.JOB_LABEL)
    return Key(meta.get("namespace", ""), name) if name else None


def trimmed(kind: Kind, seen: Object) -> Object:
    """Return what we read of an object."""
    meta = {field: seen["metadata"][field] for field in _METADATA if field in seen["metadata"]}
    if _LAST_APPLIED in (meta.get("annotations") or {}):
        meta["annotations"] = {k: v for k, v in meta["annotations"].items() if k != _LAST_APPLIED}
    meta["resourceVersion"] = seen["metadata"].get("resourceVersion", "")
    spec, status = seen.get("spec") or {}, seen.get("status") or {}
    if kind is PODS:
        spec = {field: spec[field] for field in _POD_SPEC if field in spec}
        status = {field: status[field] for field in _POD_STATUS if field in status}
    elif kind is NODES:
        spec = {"taints": spec.get("taints") or []}
        status = {
            "conditions": [_condition(c) for c in status.get("conditions") or [] if c["type"] == "Ready"]
        }
    return {"apiVersion": seen.get("apiVersion"), "kind": seen.get("kind")} | {
        "metadata": meta,
        "spec": spec,
        "status": status,
    }


def _condition(condition: Object) -> Object:
    """A node's condition without its heartbeat, which says nothing new every few minutes."""
    return {field: value for field, value in condition.items() if field != "lastHeartbeatTime"}


def _substance(kind: Kind, held: Object) -> Object:
    """What of an object is worth waking for."""
    return {**_still(held), "status": {}} if kind is not PODS else _still(held)


def _still(held: Object) -> Object:
    meta = {field: value for field, value in held["metadata"].items() if field != "resourceVersion"}
    return {**held, "metadata": meta}


def _node(pod: Object) -> str:
    return str(pod["spec"].get("nodeName", ""))


def _version(held: Object) -> int:
    """The resourceVersion as the integer it is on every server that keeps its objects in etcd."""
    text = held["metadata"].get("resourceVersion", "")
    return int(text) if text.isdecimal() else 0
