"""From messages to events: the server side of the wire. What a peer sends can do no more than be refused."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import zmq

from backupsync.wire import messages as wire
from backupsync.wire.frames import Buffer, FrameError, decode_from_worker
from backupsync_aggregator.hands import Hands
from backupsync_aggregator.network.admission import Rejected
from backupsync_aggregator.network.joining import Joining
from backupsync_aggregator.network.peers import Peer, Peers
from backupsync_aggregator.network.post import Post
from backupsync_aggregator.round import events
from backupsync_aggregator.telemetry.recorder import finite_only

_log = logging.getLogger(__name__)

_WITH_PAYLOAD: Final = (wire.Initial, wire.Chunk, wire.Commit)

Feed = Callable[[events.Event], None]


class Intake:
    """Reads, checks and sorts what peers send."""

    def __init__(self, joining: Joining, peers: Peers, hands: Hands, post: Post, feed: Feed) -> None:
        self._joining = joining
        self._peers = peers
        self._hands = hands
        self._post = post
        self._feed = feed
        self._from_member: dict[type, Callable[[Peer, Any, Buffer | None], None]] = {
            wire.Initial: joining.on_initial,
            wire.InitialDone: lambda peer, message, _: joining.on_initial_done(peer, message),
            wire.Ready: self._on_ready,
            wire.Chunk: self._on_chunk,
            wire.Commit: self._on_commit,
            wire.Abandoned: self._on_abandoned,
            wire.Exhausted: self._on_exhausted,
            wire.Evaluated: self._on_evaluated,
            wire.Heartbeat: self._on_heartbeat,
            wire.Goodbye: self._on_goodbye,
        }

    def take(self, route: bytes, frames: Sequence[zmq.Frame], now: float) -> None:
        """Handle one message. Raises Rejected or FrameError when it is to be refused."""
        peer = self._peers.by_route(route)
        sent_home = peer is None and self._peers.was_dismissed(route)
        try:
            message, payload = self._decode(peer, frames)
        except (Rejected, FrameError):
            if sent_home:
                return
            raise
        if peer is not None:
            peer.seen = now
            if not isinstance(message, wire.Heartbeat):
                peer.moved = now  # everything else is said by the working thread
        if isinstance(message, wire.Hello):
            self._joining.on_hello(route, message, now)
        elif isinstance(message, wire.Proof):
            self._joining.on_proof(route, message, now)
        elif peer is not None:
            self._from_member[type(message)](peer, message, payload)
        elif not sent_home:
            raise Rejected(wire.RefusalCode.NOT_JOINED, "say HELLO first")

    def _decode(self, peer: Peer | None, frames: Sequence[zmq.Frame]) -> tuple[Any, Buffer | None]:
        limit = self._joining.payload_limit(peer)
        parts: list[Buffer] = [frame.buffer for frame in frames]
        try:
            message, payload = decode_from_worker(parts, limit)
        except FrameError:
            raise
        except Exception as error:
            _log.exception("a message could not be read")
            raise Rejected(wire.RefusalCode.MALFORMED, f"unreadable: {type(error).__name__}") from error
        if payload is not None and not isinstance(message, _WITH_PAYLOAD):
            raise Rejected(wire.RefusalCode.MALFORMED, f"{type(message).__name__} carries no payload")
        return message, payload

    def _on_ready(self, peer: Peer, message: wire.Ready, _: Buffer | None) -> None:
        if peer.in_round:
            self._feed(events.Ready(peer.member, message.holds))
        else:
            peer.ready = message

    def _on_chunk(self, peer: Peer, message: wire.Chunk, payload: Buffer | None) -> None:
        self._tensors(peer).put(peer.member, message, payload)

    def _on_commit(self, peer: Peer, message: wire.Commit, payload: Buffer | None) -> None:
        gradients, problem = self._tensors(peer), None
        try:
            whole, finite = gradients.commit(peer.member, message, payload)
        except Rejected as rejected:
            whole, finite, problem = False, True, rejected
        self._feed(events.Committed(peer.member, message, whole=whole, finite=finite and message.finite))
        if problem is not None:
            raise problem

    def _on_abandoned(self, peer: Peer, message: wire.Abandoned, _: Buffer | None) -> None:
        self._tensors(peer).abandon(peer.member, message.iteration, message.ticket)
        self._feed(events.Abandoned(peer.member, message.iteration, message.ticket, message.timing))

    def _on_exhausted(self, peer: Peer, message: wire.Exhausted, _: Buffer | None) -> None:
        self._tensors(peer)
        self._feed(events.Exhausted(peer.member, message.iteration, message.ticket))

    def _on_evaluated(self, peer: Peer, message: wire.Evaluated, _: Buffer | None) -> None:
        self._tensors(peer)
        metrics, error = finite_only(message.metrics), message.error
        if message.metrics and not metrics and error is None:
            error = f"not finite: {', '.join(message.metrics)}"[:4096]
        seconds = message.seconds if math.isfinite(message.seconds) else 0.0
        self._feed(events.Evaluated(peer.member, message.iteration, metrics, seconds, error))

    def _on_heartbeat(self, peer: Peer, message: wire.Heartbeat, _: Buffer | None) -> None:
        peer.phase = message.phase
        peer.beat(message.progress)

    def _on_goodbye(self, peer: Peer, message: wire.Goodbye, _: Buffer | None) -> None:
        self._post.lose(peer, f"said goodbye: {message.reason}")

    def _tensors(self, peer: Peer) -> Any:
        if not peer.in_round or self._hands.gradients is None:
            raise Rejected(wire.RefusalCode.NOT_JOINED, "the job has no parameters yet")
        return self._hands.gradients
