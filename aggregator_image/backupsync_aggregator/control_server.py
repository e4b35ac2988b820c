"""HTTP beside the training: the desired state comes in, status and metrics go out. A thread of its own."""

import contextlib
import hmac
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import msgspec

from backupsync.control import AggregatorStatus, Desired
from backupsync_aggregator.network.limits import CONNECTION_LIMIT
from backupsync_aggregator.network.transport import CannotBind, has_both

MAX_BODY_BYTES: Final = 1024 * 1024
_STALL_SECONDS: Final = 60.0
_ENDS: Final = ("Succeeded", "Failed", "Suspended")
_decoder = msgspec.json.Decoder(Desired)

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class Desk:
    """Where HTTP and the loop meet: newest status here, desired states there. Safe between the threads."""

    def __init__(self, first: Desired, wake: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._latest = first
        self._fresh = False
        self._wake = wake
        self._beat = time.monotonic()
        self._status: AggregatorStatus | None = None
        self.end_seen = False
        """Somebody has read the status of a job that is over."""

    def submit(self, desired: Desired) -> tuple[bool, tuple[int, int]]:
        """Take a desired state unless it is older than the newest; return (taken, the order in force)."""
        with self._lock:
            if desired.order < self._latest.order:
                return False, self._latest.order
            if desired.order > self._latest.order:
                self._latest, self._fresh = desired, True
            order = self._latest.order
        self._wake()
        return True, order

    def take(self) -> Desired | None:
        """Return the desired state that came since the last call, if any; the newest one only."""
        with self._lock:
            fresh, self._fresh = self._fresh, False
            return self._latest if fresh else None

    def publish(self, status: AggregatorStatus) -> None:
        """Show this status from now on; the loop thereby says that it is alive."""
        self._status = status
        self._beat = time.monotonic()

    def read(self) -> AggregatorStatus | None:
        """Return the newest status."""
        status = self._status
        self.end_seen = self.end_seen or (status is not None and status.phase in _ENDS)
        return status

    @property
    def alive(self) -> bool:
        """Whether the loop has shown itself lately."""
        return time.monotonic() - self._beat < _STALL_SECONDS


class ControlServer:
    """Serves GET /status, /metrics, /healthz and POST /control until closed."""

    def __init__(self, host: str, port: int, token: str, desk: Desk, metrics: Callable[[], bytes]) -> None:
        self._application = _Application(token, desk, metrics)
        host, kind = ("::", _ServerOfBoth) if host == "*" and has_both() else (host.replace("*", ""), _Server)
        try:
            self._server = make_server(host, port, self._application, kind, _Handler)
        except (OSError, OverflowError) as error:
            raise CannotBind(
                f"http {host}:{port}: cannot be listened on: {error}; choose another port"
            ) from error
        self.port: int = self._server.server_port
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="http", daemon=True
        )
        self._thread.start()

    def announce(self, path: Path, epoch: int) -> None:
        """Write the port that was taken, whole or not at all."""
        draft = path.with_name(f".{path.name}.{epoch}")
        try:
            draft.write_text(json.dumps({"port": self.port, "epoch": epoch}), encoding="utf-8")
            draft.replace(path)
        except OSError as error:
            raise CannotBind(f"http file {path}: cannot be written: {error}") from error

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingMixIn, WSGIServer):
    """A thread per connection, as many as there may be: whoever is slow gives way to whoever comes."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self._open: dict[socket.socket, None] = {}
        self._lock = threading.Lock()
        super().__init__(*arguments, **keywords)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread; the oldest one beyond the limit ends."""
        with self._lock:
            self._open[request] = None
            oldest = next(iter(self._open)) if len(self._open) > CONNECTION_LIMIT else None
            if oldest is not None:
                del self._open[oldest]
                with contextlib.suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection that has been served."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a peer that stopped in the middle: that is its own affair."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def server_bind(self) -> None:
        """Bind without the reverse look-up of our own name, which can take seconds."""
        self.socket.bind(self.server_address)  # type: ignore[arg-type, unused-ignore]
        self.server_address = self.socket.getsockname()
        self.server_name = str(self.server_address[0])
        self.server_port = int(self.server_address[1])
        self.setup_environ()


class _ServerOfBoth(_Server):
    """One that IPv4 and IPv6 reach."""

    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        """Take IPv4 too, whatever the system's default is."""
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


class _Handler(WSGIRequestHandler):
    timeout = 10

    def log_message(self, format: str, *_: Any) -> None:  # noqa: A002 -- the base class's name
        """Say nothing: this is polled every second."""


class _Application:
    """The WSGI application."""

    def __init__(self, token: str, desk: Desk, metrics: Callable[[], bytes]) -> None:
        self._token = token
        self._desk = desk
        self._metrics = metrics
        self._routes: dict[tuple[str, str], Callable[[dict[str, Any]], tuple[HTTPStatus, str, bytes]]] = {
            ("GET", "/status"): self._status,
            ("GET", "/metrics"): self._exposition,
            ("GET", "/healthz"): self._health,
            ("POST", "/control"): self._control,
        }

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        route = self._routes.get((environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")))
        status, kind, body = (
            route(environ) if route else _error(HTTPStatus.NOT_FOUND, "no such page: see /status")
        )
        headers = [("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
        start_response(f"{status.value} {status.phrase}", headers)
        return [body]

    def _status(self, _: dict[str, Any]) -> tuple[HTTPStatus, str, bytes]:
        status = self._desk.read()
        if status is None:
            return _error(HTTPStatus.SERVICE_UNAVAILABLE, "the aggregator is starting")
        return HTTPStatus.OK, "application/json", msgspec.json.encode(status)

    def _exposition(self, _: dict[str, Any]) -> tuple[HTTPStatus, str, bytes]:
        return HTTPStatus.OK, "text/plain; version=0.0.4; charset=utf-8", self._metrics()

    def _health(self, _: dict[str, Any]) -> tuple[HTTPStatus, str, bytes]:
        if not self._desk.alive:
            return _error(HTTPStatus.SERVICE_UNAVAILABLE, "the training loop is stuck")
        return HTTPStatus.OK, "text/plain", b"ok\n"

    def _control(self, environ: dict[str, Any]) -> tuple[HTTPStatus, str, bytes]:
        given = environ.get("HTTP_AUTHORIZATION", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            return _error(HTTPStatus.UNAUTHORIZED, "needs the job's control token as Bearer")
        length = environ.get("CONTENT_LENGTH") or "0"
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            return _error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MAX_BODY_BYTES} bytes")
        try:
            desired = _decoder.decode(environ["wsgi.input"].read(int(length)))
        except OSError:
            return _error(HTTPStatus.REQUEST_TIMEOUT, f"the {length} bytes announced did not come")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return _error(HTTPStatus.BAD_REQUEST, f"is no desired state: {error}")
        if problem := _problem(desired):
            return _error(HTTPStatus.BAD_REQUEST, problem)
        taken, (term, generation) = self._desk.submit(desired)
        answer = json.dumps({"applied": [term, generation]}).encode()
        return (HTTPStatus.OK if taken else HTTPStatus.CONFLICT), "application/json", answer


def _problem(desired: Desired) -> str | None:
    """Say what is wrong with a desired state that decodes."""
    pairs = [(m.rank, m.attempt) for m in desired.members]
    if desired.workers < 1 or desired.backup_workers < 0:
        return f"workers {desired.workers} and backup_workers {desired.backup_workers}: must be >= 1 and >= 0"
    if len(set(pairs)) != len(pairs) or any(not 0 <= rank < 2000 or attempt < 0 for rank, attempt in pairs):
        return "members: must be distinct (rank, attempt) pairs with rank 0 to 1999"
    return None


def _error(status: HTTPStatus, message: str) -> tuple[HTTPStatus, str, bytes]:
    return status, "application/json", json.dumps({"error": message}).encode()
