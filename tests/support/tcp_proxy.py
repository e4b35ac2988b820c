"""A TCP proxy on loopback whose connections can be cut, or go silent while they stay open."""

import contextlib
import socket
import threading

SEEN_BYTES = 100_000


class Proxy:
    """Forwards every connection to a port of this machine."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._silent: set[socket.socket] = set()
        self.accepted = 0
        """Connections taken so far."""
        self.seen = bytearray()
        """The first bytes that went by, for those who wonder what an onlooker sees."""
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Close every connection, on both sides."""
        for pair in self._taken():
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def silence(self) -> None:
        """Let the connections of this moment carry nothing more, in either direction, but stay open."""
        with self._lock:
            self._silent.update(end for pair in self._pairs for end in pair)

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _taken(self) -> list[tuple[socket.socket, socket.socket]]:
        with self._lock:
            pairs, self._pairs = self._pairs, []
        return pairs

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                peer.close()
                continue
            self.accepted += 1
            with self._lock:
                self._pairs.append((peer, server))
            for source, sink in ((peer, server), (server, peer)):
                threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        # The other direction closes nothing here: a socket is closed by the thread that reads from it.
        with source, contextlib.suppress(OSError):
            while data := source.recv(65536):
                if len(self.seen) < SEEN_BYTES:
                    self.seen += data
                if source not in self._silent:
                    sink.sendall(data)
            if source not in self._silent:
                sink.shutdown(socket.SHUT_WR)
