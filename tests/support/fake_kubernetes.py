"""A small API server over HTTP for tests of the client alone: objects by path, watches, logs, refusals.

It knows nothing of what the objects mean. What a real API server makes of them is shown on a real one (e2e/).
"""

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from merge_patch import merged

Object = dict[str, Any]
RESOURCES = {
    "/api/v1": [
        {"name": "configmaps", "kind": "ConfigMap", "namespaced": True},
        {"name": "pods", "kind": "Pod", "namespaced": True},
        {"name": "pods/log", "kind": "Pod", "namespaced": True},
        {"name": "namespaces", "kind": "Namespace", "namespaced": False},
    ]
}


@dataclass
class Request:
    """What a client asked."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    content_type: str


@dataclass
class Log:
    """The log of a pod's container, each line with its RFC 3339 time."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    ended: bool = False


class FakeKubernetes:
    """The server; every method is safe to call from tests while it serves."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.requests: list[Request] = []
        self.refusals: list[tuple[str, str, int, Object]] = []
        """(method, path, status, body): each answered once, in order."""
        self.logs: dict[str, Log] = {}
        """By path of the pod."""
        self.history: list[tuple[int, str, str, Object]] = []
        """(revision, type, path, object)."""
        self.revision = 100
        self.changed = threading.Condition()
        self.generation = 0
        """Raised to cut every open stream."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.fake = self
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self.cut()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def cut(self) -> None:
        """Cut every open stream, as an API server does that ends."""
        with self.changed:
            self.generation += 1
            self.changed.notify_all()

    def put(self, path: str, document: Object) -> Object:
        """Create or replace an object."""
        with self.changed:
            kind = "MODIFIED" if path in self.objects else "ADDED"
            self.revision += 1
            namespace, name = path.split("/")[-3], path.split("/")[-1]
            meta = {"name": name, "namespace": namespace, "uid": f"uid-{name}"} | document.get("metadata", {})
            document = document | {"metadata": meta | {"resourceVersion": str(self.revision)}}
            self.objects[path] = document
            self.history.append((self.revision, kind, path, document))
            self.changed.notify_all()
        return document

    def remove(self, path: str) -> None:
        with self.changed:
            self.revision += 1
            document = self.objects.pop(path)
            self.history.append((self.revision, "DELETED", path, document))
            self.changed.notify_all()

    def write(self, pod: str, moment: str, text: str) -> None:
        """Append a line to a pod's log."""
        with self.changed:
            self.logs.setdefault(pod, Log()).lines.append((moment, text))
            self.changed.notify_all()

    def end_log(self, pod: str) -> None:
        """The container has ended."""
        with self.changed:
            self.logs.setdefault(pod, Log()).ended = True
            self.changed.notify_all()

    def asked(self, method: str, part: str = "") -> list[Request]:
        """The requests of a method whose path holds `part`."""
        return [r for r in self.requests if r.method == method and part in r.path]

    @contextmanager
    def waiting_for(self, method: str, part: str, timeout: float = 30.0):
        """Leave the block once a request has come that was not there before it."""
        before = len(self.asked(method, part))
        yield
        deadline = time.monotonic() + timeout
        while len(self.asked(method, part)) <= before:
            assert time.monotonic() < deadline, f"no {method} of {part}"
            time.sleep(0.01)


def status(code: int, reason: str, message: str, causes: list[Object] | None = None) -> Object:
    """A Kubernetes Status."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
        "details": {"causes": causes or []},
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def fake(self) -> FakeKubernetes:
        return self.server.fake

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        request = self._take()
        if request is None:
            return
        path = request.path
        if path in RESOURCES:
            self._send(200, {"resources": RESOURCES[path]})
        elif path.endswith("/log"):
            self._log(request)
        elif request.query.get("watch"):
            self._watch(request)
        elif path in self.fake.objects:
            self._send(200, self.fake.objects[path])
        elif _is_collection(path):
            self._send(200, {"items": _listed(self.fake, request)})
        else:
            self._missing(path)

    def do_POST(self) -> None:
        request = self._take()
        if request is None:
            return
        path = f"{request.path}/{request.body['metadata']['name']}"
        if path in self.fake.objects:
            self._send(409, status(409, "AlreadyExists", "already exists"))
        elif request.query.get("dryRun"):
            self._send(201, request.body)
        else:
            self._send(201, self.fake.put(path, _created(request.body)))

    def do_PATCH(self) -> None:
        request = self._take()
        if request is None:
            return
        applies = request.content_type == "application/apply-patch+yaml"
        if request.path not in self.fake.objects and not applies:
            self._missing(request.path)
        else:
            document = merged(self.fake.objects.get(request.path, {}), request.body)
            self._send(200, self.fake.put(request.path, document))

    def do_DELETE(self) -> None:
        request = self._take()
        if request is None:
            return
        if request.path not in self.fake.objects:
            self._missing(request.path)
        else:
            self.fake.remove(request.path)
            self._send(200, {"kind": "Status", "status": "Success"})

    def _take(self) -> Request | None:
        """Note the request; None when it is refused."""
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        request = Request(self.command, url.path, query, body, self.headers.get("Content-Type") or "")
        self.fake.requests.append(request)
        for refusal in self.fake.refusals:
            method, path, code, said = refusal
            if method == request.method and path == request.path:
                self.fake.refusals.remove(refusal)
                self._send(code, said)
                return None
        return request

    def _missing(self, path: str) -> None:
        self._send(404, status(404, "NotFound", f'"{path.rsplit("/", 1)[1]}" not found'))

    def _send(self, code: int, document: Any) -> None:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _watch(self, request: Request) -> None:
        self._begin_stream()
        name = request.query["fieldSelector"].removeprefix("metadata.name=")
        at = int(request.query.get("resourceVersion", 0))
        ends = time.monotonic() + float(request.query["timeoutSeconds"])
        with self.fake.changed:
            mine = self.fake.generation
            while mine == self.fake.generation and time.monotonic() < ends:
                for revision, kind, path, document in self.fake.history:
                    if revision > at and path == f"{request.path}/{name}":
                        self._chunk(json.dumps({"type": kind, "object": document}).encode() + b"\n")
                        at = revision
                self.fake.changed.wait(0.05)
            whole = mine == self.fake.generation
        self._end_stream(whole)

    def _log(self, request: Request) -> None:
        pod = request.path.removesuffix("/log")
        if pod not in self.fake.objects:
            self._missing(pod)
        elif pod not in self.fake.logs:
            said = "container is waiting to start: ContainerCreating"
            self._send(400, status(400, "BadRequest", said))
        else:
            self._begin_stream()
            self._end_stream(self._stream_log(pod, request.query))

    def _stream_log(self, pod: str, query: dict[str, str]) -> bool:
        """Send lines until the container ends; False when the stream was cut."""
        # As a kubelet reads it: to the second.
        since, at = query.get("sinceTime", "")[:19], 0
        with self.fake.changed:
            mine = self.fake.generation
            while mine == self.fake.generation:
                log = self.fake.logs[pod]
                for moment, text in log.lines[at:]:
                    if moment[:19] >= since:
                        self._chunk(f"{moment} {text}\n".encode())
                at = len(log.lines)
                if log.ended or not query.get("follow"):
                    return True
                self.fake.changed.wait(0.05)
        return False

    def _end_stream(self, whole: bool) -> None:
        if whole:
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.close_connection = True


def _is_collection(path: str) -> bool:
    """Whether a path names all objects of a kind, of a namespace or of all."""
    *_, scope, namespace, _plural = path.split("/")
    return scope == "namespaces" or (scope, namespace) == ("backupsync.dev", "v1alpha1")


def _listed(fake: FakeKubernetes, request: Request) -> list[Object]:
    prefix, plural = request.path.rsplit("/", 1)
    found = [
        document
        for path, document in list(fake.objects.items())
        if path.startswith(prefix) and path.split("/")[-2] == plural
    ]
    wanted = [part for part in request.query.get("labelSelector", "").split(",") if part]
    return [document for document in found if all(_labelled(document, part) for part in wanted)]


def _labelled(document: Object, wanted: str) -> bool:
    labels = document["metadata"].get("labels") or {}
    key, equals, value = wanted.partition("=")
    return labels.get(key) == value if equals else key in labels


def _created(document: Object) -> Object:
    name = document["metadata"]["name"]
    given = {"creationTimestamp": "2026-01-02T03:04:05Z", "generation": 1, "uid": f"uid-{name}"}
    return document | {"metadata": document["metadata"] | given}
