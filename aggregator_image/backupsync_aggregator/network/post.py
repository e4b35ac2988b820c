"""Sending to peers: messages, and versions of the parameters whose bytes all workers share."""

from collections import deque
from collections.abc import Sequence
from typing import Literal

import zmq

from backupsync.wire.frames import encode
from backupsync.wire.messages import FromAggregator, Parameters, Refused
from backupsync.wire.schema import chunks
from backupsync_aggregator.network.peers import Peer
from backupsync_aggregator.network.transport import Link, Part, Unreachable

Section = Literal["moving", "frozen", "ema"]


class Post:
    """Sends without blocking; a peer that cannot be reached is noted as lost, once."""

    def __init__(self, link: Link, epoch: int, chunk_bytes: int) -> None:
        self.lost: deque[tuple[Peer, str]] = deque()
        self._link = link
        self._epoch = epoch
        self._chunk_bytes = chunk_bytes
        self._version: dict[Section, tuple[int, list[list[Part]]]] = {}

    def send(self, peer: Peer, message: FromAggregator) -> None:
        """Send one message to a peer."""
        self._send(peer, encode(message))

    def forget_version(self, section: Section) -> None:
        """Let go of the bytes of a section that nobody else will be sent."""
        self._version.pop(section, None)

    def send_section(self, peer: Peer, section: Section, iteration: int, data: memoryview) -> None:
        """Send a section of the parameters in chunks; none of its bytes is copied for this peer."""
        for frames in self._frames(section, iteration, data):
            self._send(peer, frames)

    def refuse(self, route: bytes, refused: Refused) -> bool:
        """Answer a peer that is not let in; False when it is gone already."""
        try:
            self._link.send(route, encode(refused))
        except Unreachable:
            return False
        return True

    def lose(self, peer: Peer, detail: str) -> None:
        """Note that the peer is gone: nothing more is sent to it."""
        if not peer.lost:
            peer.lost = True
            self.lost.append((peer, detail))

    def _send(self, peer: Peer, frames: Sequence[Part]) -> None:
        if peer.lost:
            return
        try:
            self._link.send(peer.route, frames)
        except Unreachable as error:
            self.lose(peer, str(error))

    def _frames(self, section: Section, iteration: int, data: memoryview) -> list[list[Part]]:
        """Return the messages of one version, the same objects for every worker."""
        known = self._version.get(section)
        if known and known[0] == iteration:
            return known[1]
        total = len(data)
        messages: list[list[Part]] = []
        for offset, size in chunks(total, self._chunk_bytes):
            header = Parameters(self._epoch, iteration, section, offset, total)
            payload = zmq.Frame(data[offset : offset + size])
            messages.append([*encode(header), payload])
        self._version[section] = (iteration, messages)
        return messages
