"""The engine's line to the aggregator: desired state down, status up, over HTTP with deadlines.

A thread of its own polls, so that a slow answer never holds up the engine.
"""

import http.client
import json
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from backupsync.control import AggregatorStatus, Desired
from backupsync.errors import BackupSyncError

POLL_SECONDS = 0.2
_STATUS = msgspec.json.Decoder(AggregatorStatus)


class UnreachableError(BackupSyncError):
    """The aggregator did not answer, or not as it must."""


class AggregatorClient:
    """Requests to one aggregator on this machine."""

    def __init__(self, port: int, token: str, timeout_seconds: float = 2.0) -> None:
        self._port = port
        self._token = token
        self._timeout = timeout_seconds

    def status(self) -> AggregatorStatus:
        """`GET /status`. Raises UnreachableError."""
        code, body = self._request("GET", "/status")
        if code != 200:
            raise UnreachableError(f"GET /status: the aggregator answers {code}")
        try:
            return _STATUS.decode(body)
        except msgspec.MsgspecError as error:
            raise UnreachableError(f"GET /status: is no status: {error}") from error

    def control(self, desired: Desired) -> bool:
        """`POST /control`; False when a newer desired state is in force. Raises UnreachableError."""
        code, body = self._request("POST", "/control", msgspec.json.encode(desired))
        if code == 409:
            return False
        if code >= 300:
            detail = body.decode(errors="replace")[:200]
            raise UnreachableError(f"POST /control: the aggregator answers {code}: {detail}")
        return True

    def _request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=self._timeout)
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(f"{method} {path}: {error}") from error
        finally:
            connection.close()


class Poller:
    """Keeps the newest answer of the aggregator of one epoch, and tells it what is wanted until it has it."""

    def __init__(self, http_file: Path, epoch: int, token: str, changed: Callable[[], None]) -> None:
        self._http_file = http_file
        self._epoch = epoch
        self._token = token
        self._changed = changed
        self._port: int | None = None
        self._desired: Desired | None = None
        self._latest: AggregatorStatus | None = None
        self._closed = threading.Event()
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"poll-{epoch}", daemon=True)
        self._thread.start()

    @property
    def epoch(self) -> int:
        """Epoch of the aggregator that is polled."""
        return self._epoch

    @property
    def latest(self) -> AggregatorStatus | None:
        """Newest answer; None before the first."""
        return self._latest

    def tell(self, desired: Desired) -> None:
        """Send this desired state, as soon and as often as it takes."""
        if desired != self._desired:
            self._desired = desired
            self._hurry.set()

    def close(self) -> None:
        """Stop polling; does not wait for an answer under way."""
        self._closed.set()
        self._hurry.set()

    def _run(self) -> None:
        told: Desired | None = None
        while not self._closed.is_set():
            self._hurry.clear()
            client = self._connect()
            if client is not None:
                told = self._exchange(client, told)
            self._hurry.wait(POLL_SECONDS)

    def _exchange(self, client: AggregatorClient, told: Desired | None) -> Desired | None:
        desired = self._desired
        try:
            if desired is not None and desired != told:
                client.control(desired)
                told = desired
            status = client.status()
        except UnreachableError:
            # It is starting, or gone: its process says which.
            return None
        if status.epoch != self._epoch:
            return None
        if desired is not None and status.applied < desired.order:
            told = None
        if status != self._latest:
            self._latest = status
            self._changed()
        return told

    def _connect(self) -> AggregatorClient | None:
        # An aggregator keeps its port; the file may be tidied away by somebody.
        self._port = read_port(self._http_file, self._epoch) or self._port
        return None if self._port is None else AggregatorClient(self._port, self._token)


def read_port(http_file: Path, epoch: int | None = None) -> int | None:
    """Return the port that a process wrote down; None while there is none (or one of another epoch)."""
    try:
        document = json.loads(http_file.read_bytes())
    except (OSError, ValueError):
        return None
    if isinstance(document, int):
        return document
    if not isinstance(document, dict) or (epoch is not None and document.get("epoch") != epoch):
        return None
    port = document.get("port")
    return port if isinstance(port, int) else None
