"""The socket: a ROUTER that never blocks on a peer, and whose queues and messages are bounded."""

import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import zmq

from backupsync.errors import BackupSyncError
from backupsync.spec import WireSpec
from backupsync_aggregator.network.limits import RECEIVE_LIMIT, SEND_LIMIT, largest_message

Part = bytes | bytearray | memoryview | zmq.Frame

_MESSAGE_PARTS: Final = 3
_LINGER_MS: Final = 2000


class Unreachable(Exception):  # noqa: N818 -- what the peer is
    """The peer's connection is gone, or its pipe is full."""


class CannotBind(BackupSyncError):  # noqa: N818 -- what happened
    """An address that cannot be listened on."""


class Link:
    """A bound ROUTER socket; routing ids are the socket's own, never the peer's choice."""

    def __init__(self, endpoint: str, wire: WireSpec, curve_secret: bytes | None) -> None:
        self.received_bytes = 0
        self.sent_bytes = 0
        self._context = zmq.Context()
        self.socket: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        self._configure(wire, curve_secret)
        try:
            self._bind(endpoint)
        except BaseException:
            self.close(linger_ms=0)
            raise

    def receive(self) -> tuple[bytes, list[zmq.Frame]] | None:
        """Return (route, frames) of the next message, or None when none waits. Surplus frames are dropped."""
        try:
            route = self.socket.recv(zmq.DONTWAIT)
        except zmq.Again:
            return None
        frames: list[zmq.Frame] = []
        while self.socket.getsockopt(zmq.RCVMORE):
            frame = self.socket.recv(copy=False)
            self.received_bytes += len(frame)
            if len(frames) < _MESSAGE_PARTS:
                frames.append(frame)
        return route, frames

    def send(self, route: bytes, frames: Sequence[Part]) -> None:
        """Queue one message; large parts are not copied. Raises Unreachable, having queued nothing."""
        try:
            self.socket.send_multipart([route, *frames], zmq.DONTWAIT, copy=False)
        except zmq.Again:
            raise Unreachable("its pipe is full: it no longer reads") from None
        except zmq.ZMQError as error:
            if error.errno in (zmq.EHOSTUNREACH, zmq.ENOTCONN):
                raise Unreachable("its connection is gone") from None
            raise
        self.sent_bytes += sum(map(len, frames))

    def close(self, linger_ms: int = _LINGER_MS) -> None:
        """Close the socket; what is queued may still leave for `linger_ms`."""
        self.socket.close(linger=linger_ms)
        self._context.term()

    def _configure(self, wire: WireSpec, curve_secret: bytes | None) -> None:
        option = self.socket.setsockopt
        option(zmq.ROUTER_MANDATORY, 1)
        option(zmq.SNDHWM, SEND_LIMIT)
        option(zmq.RCVHWM, RECEIVE_LIMIT)
        option(zmq.MAXMSGSIZE, largest_message(wire.chunk_bytes))
        option(zmq.BACKLOG, 1024)
        option(zmq.HEARTBEAT_IVL, max(100, int(wire.heartbeat_seconds * 1000)))
        option(zmq.HEARTBEAT_TIMEOUT, max(200, int(wire.timeout_seconds * 1000)))
        if curve_secret is not None:
            option(zmq.CURVE_SERVER, 1)
            option(zmq.CURVE_SECRETKEY, curve_secret)

    def _bind(self, endpoint: str) -> None:
        if endpoint.startswith("ipc://"):
            _clear_path(endpoint.removeprefix("ipc://"))
        else:
            endpoint = _resolved(endpoint)
            if "[" in endpoint or (endpoint.startswith("tcp://*") and has_both()):
                self.socket.setsockopt(zmq.IPV6, 1)
        try:
            self.socket.bind(endpoint)
        except zmq.ZMQError as error:
            remedy = (
                "choose another port" if error.errno == zmq.EADDRINUSE else "give an address of this host"
            )
            raise CannotBind(f"endpoint {endpoint}: cannot be listened on: {error}; {remedy}") from error


def has_both() -> bool:
    """Whether one socket here can listen on IPv4 and IPv6: some nodes have IPv6 switched off."""
    return socket.has_dualstack_ipv6()


def _clear_path(path: str) -> None:
    """Make room for an ipc socket: a private directory, and no socket of a killed predecessor."""
    target = Path(path)
    try:
        if not target.parent.exists():
            target.parent.mkdir(parents=True, mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            target.unlink()
    except OSError as error:
        raise CannotBind(f"endpoint ipc://{path}: {error}") from error


def _resolved(endpoint: str) -> str:
    """Resolve a host name ourselves: libzmq would take it for a network interface."""
    parts = urlsplit(endpoint)
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise CannotBind(f"endpoint {endpoint}: {error}; give tcp://HOST:PORT or ipc://PATH") from error
    if parts.scheme != "tcp" or host is None or port is None:
        raise CannotBind(f"endpoint {endpoint}: must be tcp://HOST:PORT or ipc://PATH")
    if host == "*":
        return endpoint
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise CannotBind(f"endpoint {endpoint}: host {host}: {error}") from error
    return f"tcp://[{address[0]}]:{port}" if family == socket.AF_INET6 else f"tcp://{address[0]}:{port}"
