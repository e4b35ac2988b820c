"""Running a command in a container: its output as a stream of bytes, its exit code as an error."""

import io
import json
import ssl
from typing import Any, Final, cast

from backupsync.cluster import paths
from backupsync.cluster.connection import Connection
from backupsync.cluster.errors import ClusterError, unreachable

_STDOUT: Final = 1
_STDERR: Final = 2
_ERROR: Final = 3
"""Channels of the subprotocol v4.channel.k8s.io: the first byte of each frame."""


class CommandOutput(io.RawIOBase):
    """What a command writes to stdout, as a file; `finish` tells whether it ended well."""

    def __init__(
        self, connection: Connection, namespace: str, pod: str, container: str, command: list[str]
    ) -> None:
        """Start `command` in a container. Raises ClusterError's kinds."""
        query = [("container", container), ("stdout", "true"), ("stderr", "true")]
        query += [("command", part) for part in command]
        path = paths.core(namespace, "pods", pod, "exec")
        self._what = f"pod {pod}"
        self._host = connection.host
        self._socket = connection.websocket(path, self._what, query=query)
        self._ready = b""
        self._stderr = b""
        self._status: dict[str, Any] | None = None
        self._open = True

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with what has come; 0 at the end."""
        while not self._ready and self._open:
            self._receive()
        taken = self._ready[: len(buffer)]
        buffer[: len(taken)] = taken
        self._ready = self._ready[len(taken) :]
        return len(taken)

    def finish(self) -> None:
        """Read to the end, and raise ClusterError with stderr's last words if the command failed."""
        while self._open:
            self._ready = b""
            self._receive()
        if self._status is not None and self._status.get("status") == "Success":
            return
        said = self._stderr.decode("utf-8", "replace").strip()
        reason = str((self._status or {}).get("message") or "the connection was cut")
        raise ClusterError(f"{self._what}: {said.splitlines()[-1] if said else reason}")

    def close(self) -> None:
        """End the connection, and with it the command."""
        self._open = False
        self._socket.close()
        super().close()

    def _receive(self) -> None:
        from websocket import ABNF, WebSocketException  # noqa: PLC0415

        try:
            code, frame = self._socket.recv_data_frame(True)
        except (WebSocketException, OSError, ssl.SSLError) as error:
            self._open = False
            if self._status is None:
                raise unreachable(self._host, error) from error
            return
        if code == ABNF.OPCODE_CLOSE:
            self._open = False
        elif code in (ABNF.OPCODE_BINARY, ABNF.OPCODE_TEXT) and frame.data:
            self._take(frame.data[0], bytes(frame.data[1:]))

    def _take(self, channel: int, data: bytes) -> None:
        if channel == _STDOUT:
            self._ready += data
        elif channel == _STDERR:
            self._stderr = (self._stderr + data)[-65536:]
        elif channel == _ERROR:
            self._status = cast("dict[str, Any]", json.loads(data))
