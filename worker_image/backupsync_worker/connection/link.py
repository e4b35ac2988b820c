"""One connection to the aggregator: a DEALER socket of its own, guarded by a lock, never reconnecting itself.

ZeroMQ would reconnect behind our back and come out as a stranger to the aggregator; so a lost connection is
seen (by the socket's monitor and ZMTP heartbeats), said, and answered with a new socket and a new join.
"""

import socket
import struct
import threading
import time
from typing import Final, NamedTuple, NoReturn

import zmq

from backupsync.spec import WireSpec
from backupsync.wire.frames import Buffer, FrameError, decode_from_aggregator, encode
from backupsync.wire.messages import FromAggregator, FromWorker

_LOST: Final = (
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_HANDSHAKE_FAILED: Final = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
_NEVER_MS: Final = 24 * 60 * 60 * 1000
_MAX_HEADER_BYTES: Final = 1024 * 1024
SLICE: Final = 0.1
"""Longest time in seconds that a wait holds the lock, so that signals and heartbeats come through."""


class ConnectionLost(Exception):  # noqa: N818 -- a state, not a fault
    """The connection to the aggregator is gone, or the aggregator speaks nonsense."""


class Address(NamedTuple):
    """Where the aggregator listens."""

    endpoint: str
    """Resolved: an IP address or a path."""
    server_key: bytes | None = None
    """CURVE public key (z85) of the aggregator, when the wire is encrypted."""


class Link:
    """A connection attempt. Every method may be called from any thread; only one of them waits at a time.

    Raises ConnectionLost from every method once the connection is gone and what had come is read.
    """

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", address: Address, wire: WireSpec, max_payload: int
    ) -> None:
        self._lock = threading.RLock()
        self._max_payload = max_payload
        self._ending: str | None = None
        self._lost: str | None = None
        self._timeout = wire.timeout_seconds
        self.heard = time.monotonic()
        """When the aggregator was last heard of."""
        self.sent_bytes = 0
        self.received_bytes = 0
        self._socket = context.socket(zmq.DEALER)
        try:
            _configure(self._socket, wire, max(max_payload, _MAX_HEADER_BYTES))
            if address.server_key is not None:
                self._socket.curve_publickey, self._socket.curve_secretkey = zmq.curve_keypair()
                self._socket.curve_serverkey = address.server_key
            self._monitor = self._socket.get_monitor_socket(_LOST)
            self._poller = zmq.Poller()
            self._poller.register(self._socket, zmq.POLLIN)
            self._poller.register(self._monitor, zmq.POLLIN)
            self._socket.connect(address.endpoint)
        except BaseException:
            self._socket.close(0)
            raise

    def send(self, message: FromWorker, payload: Buffer | None = None) -> None:
        """Send `message`; its payload must stay unchanged until the aggregator has answered."""
        frames = encode(message, payload)
        deadline = time.monotonic() + self._timeout
        with self._lock:
            while True:
                self._check_open()
                try:
                    self._socket.send_multipart(frames, zmq.DONTWAIT, copy=False)
                    break
                except zmq.Again:
                    self._wait_for_room(deadline)
            self.sent_bytes += sum(len(frame) for frame in frames)

    def try_send(self, message: FromWorker) -> bool:
        """Send `message` unless another thread uses the link or there is no room; say whether it went."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._lost is not None or self._socket.closed:
                return False
            self._socket.send_multipart(encode(message), zmq.DONTWAIT)
        except zmq.ZMQError:
            return False
        else:
            return True
        finally:
            self._lock.release()

    def receive(self) -> tuple[FromAggregator, Buffer | None] | None:
        """Return the next message that has come, or None. The payload lives as long as it is referenced."""
        with self._lock:
            self._check_open()
            frames = self._take()
            if frames is None:
                self._read_monitor()
                # What came between that look and the end of the connection is still to be read.
                frames = self._take() if self._ending else None
                if frames is None:
                    if self._ending:
                        self._lose(self._ending)
                    return None
            self.heard = time.monotonic()
            self.received_bytes += sum(len(frame) for frame in frames)
            try:
                return decode_from_aggregator(frames, self._max_payload)
            except FrameError as error:
                self._lose(f"the aggregator sent what is no message: {error}")

    def wait(self, seconds: float) -> None:
        """Wait until something has come or the connection is gone, at most `seconds` (and at most SLICE)."""
        with self._lock:
            self._check_open()
            self._poller.poll(max(0, round(min(seconds, SLICE) * 1000)))

    def close(self, linger: float = 0.0) -> None:
        """Close; what has been sent gets `linger` seconds to leave this process."""
        with self._lock:
            if not self._socket.closed:
                self._socket.disable_monitor()
                self._monitor.close(0)
                self._socket.close(round(linger * 1000))
            self._lost = self._lost or "closed"

    def _check_open(self) -> None:
        if self._lost is not None:
            raise ConnectionLost(self._lost)

    def _lose(self, why: str) -> NoReturn:
        self._lost = why
        raise ConnectionLost(why)

    def _take(self) -> list[Buffer] | None:
        try:
            return [frame.buffer for frame in self._socket.recv_multipart(zmq.DONTWAIT, copy=False)]
        except zmq.Again:
            return None

    def _read_monitor(self) -> None:
        """Look for the end of the connection."""
        while self._monitor.poll(0):
            event, _ = struct.unpack("=HI", self._monitor.recv_multipart()[0])
            if event & _LOST and not self._ending:
                refused = " (is the job's key the aggregator's?)" if event & _HANDSHAKE_FAILED else ""
                self._ending = f"no connection to the aggregator{refused}"

    def _wait_for_room(self, deadline: float) -> None:
        self._read_monitor()
        if self._ending:
            self._lose(self._ending)
        if time.monotonic() > deadline:
            self._lose(f"the aggregator took nothing for {self._timeout:g} s")
        self._socket.poll(round(SLICE * 1000), zmq.POLLOUT)


def resolve(endpoint: str, turn: int = 0) -> str:
    """Return `endpoint` with its host name as an address, each in its `turn` when there are several.

    ZeroMQ resolves inside its I/O thread, once, and says nothing when that fails; and a successor of the
    aggregator has another address under the same name. Raises ConnectionLost when there is none now.
    """
    if not endpoint.startswith("tcp://"):
        return endpoint
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        raise ConnectionLost(f"{endpoint}: {error}") from error
    family, _, _, _, where = found[turn % len(found)]
    return f"tcp://[{where[0]}]:{port}" if family == socket.AF_INET6 else f"tcp://{where[0]}:{port}"


def _configure(dealer: "zmq.Socket[bytes]", wire: WireSpec, max_message: int) -> None:
    timeout = round(wire.timeout_seconds * 1000)
    dealer.linger = 0
    dealer.reconnect_ivl = _NEVER_MS
    dealer.maxmsgsize = max_message
    dealer.handshake_ivl = timeout
    dealer.heartbeat_ivl = round(wire.heartbeat_seconds * 1000)
    dealer.heartbeat_timeout = timeout
    dealer.heartbeat_ttl = min(timeout, 6_553_500)
    dealer.ipv6 = True
    dealer.tcp_keepalive = 1
