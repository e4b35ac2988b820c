"""A small API server: objects in memory, resourceVersions, list and watch, merge patch, /status, owner GC.

Honest about what an operator relies on, and no more: no schemas, no admission but a test's own `refuse`.
"""

import asyncio
import base64
import copy
import itertools
import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from merge_patch import merged

Object = dict[str, Any]

KINDS = {
    ("", "v1"): {
        "pods": ("Pod", True),
        "services": ("Service", True),
        "secrets": ("Secret", True),
        "persistentvolumeclaims": ("PersistentVolumeClaim", True),
        "events": ("Event", True),
        "nodes": ("Node", False),
        "namespaces": ("Namespace", False),
    },
    ("apiextensions.k8s.io", "v1"): {"customresourcedefinitions": ("CustomResourceDefinition", False)},
    ("policy", "v1"): {"poddisruptionbudgets": ("PodDisruptionBudget", True)},
    ("coordination.k8s.io", "v1"): {"leases": ("Lease", True)},
    ("backupsync.dev", "v1alpha1"): {"backupsyncjobs": ("BackupSyncJob", True)},
}
VIA = web.RequestKey("via", str)
STATUS = {"pods", "backupsyncjobs", "nodes"}


class Refusal(Exception):  # noqa: N818
    def __init__(self, code: int, reason: str, message: str) -> None:
        self.code, self.reason, self.message = code, reason, message


class FakeApi:
    """Serves on 127.0.0.1; `objects` maps (plural, namespace, name) to the object."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.writes: list[tuple[str, str, str]] = []
        """(verb, plural[/subresource], name) of every write, refused ones too."""
        self.reads: list[tuple[str, str]] = []
        """(plural, namespace, empty for the whole cluster) of every read."""
        self.refuse: Callable[[str, str, str, Object], Refusal | None] = lambda *_: None
        """Called with verb, plural, name and body of each write."""
        self.before: Callable[[str, str, str], None] = lambda *_: None
        self.after: Callable[[str, str, str], None] = lambda *_: None
        """Called around each write with verb, plural[/subresource] and name."""
        self.severed: set[str] = set()
        """Clients (see `via`) whose requests go unheard, and whose answers are lost."""
        self.pods_linger = True
        """A deleted pod stays until its kubelet confirms (`gone`), unless it has ended or force is used."""
        self._log: list[tuple[int, str, str, Object]] = []
        self._versions = itertools.count(1)
        self._version = 0
        self._changed = asyncio.Condition()
        self._waiting: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> "FakeApi":
        application = web.Application(client_max_size=16 * 1024**2)
        application.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._waiting:
            task.cancel()
        await self._runner.cleanup()

    # What tests do to it.

    def get(self, plural: str, name: str, namespace: str = "default") -> Object | None:
        return self.objects.get((plural, namespace, name))

    def all(self, plural: str) -> list[Object]:
        return [held for (kind, _, _), held in self.objects.items() if kind == plural]

    async def put(self, plural: str, body: Object, namespace: str = "default") -> Object:
        """Create or replace an object, as somebody else would."""
        namespace = "" if plural == "nodes" else namespace
        key = (plural, namespace, body["metadata"]["name"])
        old = self.objects.get(key)
        return await self._store(key, copy.deepcopy(body), "MODIFIED" if old else "ADDED", old)

    async def change(self, plural: str, name: str, patch: Object, namespace: str = "default") -> Object:
        """Merge `patch` into an object, as somebody else would."""
        key = (plural, "" if plural == "nodes" else namespace, name)
        old = self.objects[key]
        return await self._store(key, merged(copy.deepcopy(old), patch), "MODIFIED", old)

    async def gone(self, plural: str, name: str, namespace: str = "default", *, unseen: bool = False) -> None:
        """Remove an object and what it owns; `unseen` tells no watch of it."""
        held = self.objects.pop((plural, namespace, name))
        await self._announce("DELETED", plural, held, unseen=unseen)
        uid = held["metadata"]["uid"]
        for (kind, place, child), other in list(self.objects.items()):
            owners = other["metadata"].get("ownerReferences") or []
            if any(owner["uid"] == uid for owner in owners):
                await self.gone(kind, child, place, unseen=unseen)

    async def next_change(self) -> None:
        """Wait until anything changes."""
        async with self._changed:
            await self._changed.wait()

    def forget_history(self) -> None:
        """Have every new watch start with 410 Gone, as after a compaction."""
        self._log.clear()
        self._oldest = self._version

    _oldest = 0

    # How it answers.

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.strip("/").split("/")
        if parts[0] == "via":
            request[VIA], parts = parts[1], parts[2:]
            self._cut_off(request)
        found = _discovery(parts)
        if found is not None:
            return web.json_response(found)
        try:
            return await self._resource(request, parts)
        except Refusal as error:
            return _status(error)

    def via(self, name: str) -> str:
        """An address of this server for one client, which `severed` can cut off."""
        return f"{self.url}/via/{name}"

    def _cut_off(self, request: web.Request) -> None:
        if request.get(VIA) in self.severed and request.transport is not None:
            request.transport.abort()

    async def _resource(self, request: web.Request, parts: list[str]) -> web.StreamResponse:
        parts = parts[3:] if parts[0] == "apis" else parts[2:]
        namespace = ""
        if parts[0] == "namespaces" and len(parts) > 2:
            namespace, parts = parts[1], parts[2:]
        plural, name, sub = (*parts, "", "")[:3]
        if request.method == "GET":
            self.reads.append((plural, namespace))
            return await self._read(request, plural, namespace, name)
        body = await request.json() if request.can_read_body else {}
        label = plural + (f"/{sub}" if sub else "")
        target = name or body.get("metadata", {}).get("name", "")
        self.writes.append((request.method, label, target))
        self.before(request.method, label, target)
        if request.get(VIA) in self.severed:
            self._cut_off(request)
            raise Refusal(500, "InternalError", "cut off")
        refusal = self.refuse(request.method, plural, target, body)
        if refusal is not None:
            raise refusal
        code, answer = await self._write(request.method, plural, namespace, target, sub, body)
        self.after(request.method, label, target)
        self._cut_off(request)
        return web.json_response(answer, status=code)

    async def _write(
        self, method: str, plural: str, namespace: str, name: str, sub: str, body: Object
    ) -> tuple[int, Object]:
        key = (plural, namespace, name)
        old = self.objects.get(key)
        if method == "POST":
            if old is not None:
                raise Refusal(409, "AlreadyExists", f'{plural} "{name}" already exists')
            return 201, await self._store(key, body, "ADDED", None)
        if old is None:
            raise Refusal(404, "NotFound", f'{plural} "{name}" not found')
        if method == "DELETE":
            return 200, await self._delete(key, old, body)
        wanted = body if method == "PUT" else merged(copy.deepcopy(old), body)
        version = body.get("metadata", {}).get("resourceVersion")
        if version is not None and version != old["metadata"]["resourceVersion"]:
            raise Refusal(409, "Conflict", f'{plural} "{name}": the object has been modified')
        if sub == "status":
            wanted = {**old, "status": wanted.get("status", {})}
        elif plural in STATUS:
            wanted = {**wanted, "status": old.get("status", {})}
        return 200, await self._store(key, wanted, "MODIFIED", old)

    async def _delete(self, key: tuple[str, str, str], old: Object, options: Object) -> Object:
        plural, namespace, name = key
        uid = (options.get("preconditions") or {}).get("uid")
        if uid is not None and uid != old["metadata"]["uid"]:
            raise Refusal(409, "Conflict", f"Precondition failed: UID in precondition: {uid}")
        ended = old.get("status", {}).get("phase") in ("Succeeded", "Failed")
        grace = options.get("gracePeriodSeconds", 30)
        if plural == "pods" and self.pods_linger and not ended and grace > 0:
            if "deletionTimestamp" in old["metadata"]:
                return old
            meta = {"deletionTimestamp": _now(), "deletionGracePeriodSeconds": grace}
            return await self._store(key, {**old, "metadata": {**old["metadata"], **meta}}, "MODIFIED", old)
        await self.gone(plural, name, namespace)
        return {"kind": "Status", "status": "Success"} if plural != "pods" else old

    async def _store(
        self, key: tuple[str, str, str], body: Object, change: str, old: Object | None
    ) -> Object:
        plural, namespace, name = key
        meta = {**body.get("metadata", {}), "name": name}
        if namespace:
            meta["namespace"] = namespace
        meta["uid"] = old["metadata"]["uid"] if old else str(uuid.uuid4())
        meta["creationTimestamp"] = old["metadata"]["creationTimestamp"] if old else _now()
        if plural == "backupsyncjobs":
            before = old["metadata"].get("generation", 1) if old else 0
            changed = old is None or body.get("spec") != old.get("spec")
            meta["generation"] = before + 1 if changed else before
        stored = {**body, "metadata": meta}
        if "stringData" in stored:
            plain = stored.pop("stringData").items()
            stored["data"] = {k: base64.b64encode(v.encode()).decode() for k, v in plain}
        if old is not None and _still(stored) == _still(old):
            return old
        self._version = next(self._versions)
        meta["resourceVersion"] = str(self._version)
        self.objects[key] = stored
        await self._announce(change, plural, stored)
        return copy.deepcopy(stored)

    async def _announce(self, change: str, plural: str, body: Object, *, unseen: bool = False) -> None:
        if change == "DELETED":
            self._version = next(self._versions)
            body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self._version)}}
        async with self._changed:
            if not unseen:
                self._log.append((self._version, change, plural, copy.deepcopy(body)))
            self._changed.notify_all()

    async def _read(self, request: web.Request, plural: str, namespace: str, name: str) -> web.StreamResponse:
        if name:
            held = self.objects.get((plural, namespace, name))
            if held is None:
                raise Refusal(404, "NotFound", f'{plural} "{name}" not found')
            return web.json_response(held)
        selector = request.query.get("labelSelector", "")
        if request.query.get("watch") == "true":
            return await self._watch(request, plural, namespace, selector)
        items = [
            held
            for (kind, place, _), held in self.objects.items()
            if kind == plural and namespace in ("", place) and _selected(held, selector)
        ]
        return web.json_response(
            {
                "kind": "List",
                "apiVersion": "v1",
                "metadata": {"resourceVersion": str(self._version)},
                "items": items,
            }
        )

    async def _watch(
        self, request: web.Request, plural: str, namespace: str, selector: str
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        since = int(request.query.get("resourceVersion", "0"))
        if since < self._oldest:
            await response.write(_line("ERROR", {"kind": "Status", "code": 410, "reason": "Expired"}))
            return response
        task = asyncio.current_task()
        assert task is not None
        self._waiting.add(task)
        try:
            while True:
                for version, change, kind, body in list(self._log):
                    if version <= since or kind != plural:
                        continue
                    since = version
                    if namespace in ("", body["metadata"].get("namespace")) and _selected(body, selector):
                        await response.write(_line(change, body))
                async with self._changed:
                    while not any(v > since and k == plural for v, _, k, _ in self._log):
                        await self._changed.wait()
        except (ConnectionError, asyncio.CancelledError):
            return response
        finally:
            self._waiting.discard(task)

    def cut_watches(self) -> None:
        """End every watch, as a restart of the API server does."""
        for task in self._waiting:
            task.cancel()


def _discovery(parts: list[str]) -> Object | None:
    if parts == ["api"]:
        return {"versions": ["v1"]}
    if parts == ["apis"]:
        groups = [(g, v) for g, v in KINDS if g]
        return {
            "groups": [
                {"name": g, "versions": [{"version": v}], "preferredVersion": {"version": v}}
                for g, v in groups
            ]
        }
    if parts[0] == "version":
        return {"major": "1", "minor": "34"}
    place = ("", parts[1]) if parts[0] == "api" else tuple(parts[1:3])
    if place in KINDS and len(parts) == (2 if parts[0] == "api" else 3):
        return {
            "resources": [
                {
                    "name": plural,
                    "kind": kind,
                    "namespaced": namespaced,
                    "singularName": kind.lower(),
                    "verbs": ["list", "watch", "get", "create", "patch", "delete"],
                }
                for plural, (kind, namespaced) in KINDS[place].items()
            ]
        }
    return None


def _status(error: Refusal) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "code": error.code}
    return web.json_response({**body, "reason": error.reason, "message": error.message}, status=error.code)


def _line(change: str, body: Object) -> bytes:
    return json.dumps({"type": change, "object": body}).encode() + b"\n"


def _still(body: Object) -> Object:
    meta = {k: v for k, v in body["metadata"].items() if k != "resourceVersion"}
    return {**body, "metadata": meta}


def _selected(held: Object, selector: str) -> bool:
    labels = held["metadata"].get("labels") or {}
    pairs = [part.split("=", 1) for part in selector.split(",") if part]
    return all(labels.get(key) == value for key, value in pairs)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
