"""The loop: one thread that owns the sockets, asks the round, and does what it says."""

from collections import deque
from dataclasses import dataclass
from typing import Final

import zmq

from backupsync.control import Desired
from backupsync.spec import WireSpec
from backupsync.termination import encode_ending, write_last_words
from backupsync.wire.frames import FrameError
from backupsync_aggregator.checkpoints.saver import Saver
from backupsync_aggregator.clock import Clock
from backupsync_aggregator.control_server import Desk
from backupsync_aggregator.hands import Hands
from backupsync_aggregator.network.admission import Rejected
from backupsync_aggregator.network.intake import Intake
from backupsync_aggregator.network.joining import Joining
from backupsync_aggregator.network.peers import Peers
from backupsync_aggregator.network.post import Post
from backupsync_aggregator.network.refusing import Refuser
from backupsync_aggregator.network.transport import Link
from backupsync_aggregator.round import AnyRound
from backupsync_aggregator.round.events import Desire, Event, Left, Member, Tick
from backupsync_aggregator.telemetry.status import Publisher
from backupsync_aggregator.wake import StopSignal, Wake

_TICK_SECONDS: Final = 0.05
_BURST: Final = 256
"""Messages taken in a row before deadlines are looked at."""
LINGER_SECONDS: Final = 60.0
"""How long the status stays up after the end, for an engine that has yet to read it."""

STOP_SECONDS: Final = 1.0
"""The same, for an engine that asked for the end."""


@dataclass(frozen=True)
class Parts:
    """What the loop holds together."""

    link: Link
    wake: Wake
    stop: StopSignal
    desk: Desk
    clock: Clock
    peers: Peers
    post: Post
    hands: Hands
    joining: Joining
    saver: Saver
    refuser: Refuser
    publisher: Publisher
    wire: WireSpec
    """How long a member may be silent, or hang."""


class Loop:
    """Runs one aggregator from its first message to its end."""

    def __init__(self, parts: Parts, round_: AnyRound, desired: Desired) -> None:
        self._parts = parts
        self._round = round_
        self._desired = desired
        self._events: deque[Event] = deque()
        self._feeding = False
        self._ended_at: float | None = None
        self._stopping = False
        self._ticked = float("-inf")
        self._intake = Intake(parts.joining, parts.peers, parts.hands, parts.post, self.feed)
        parts.joining.feed = self.feed
        self._take_over(desired)

    def show(self) -> None:
        """Publish how things stand now."""
        self._parts.publisher.publish(self._round, self._parts.clock.now(), at_once=True)

    def run(self) -> None:
        """Serve until the job is over and the engine knows, or until told to stop. Raises Fenced."""
        poller = zmq.Poller()
        poller.register(self._parts.link.socket, zmq.POLLIN)
        poller.register(self._parts.wake.fileno(), zmq.POLLIN)
        while not self._done():
            poller.poll(int(_TICK_SECONDS * 1000))
            self._parts.wake.clear()
            drained = self._receive()
            self._obey()
            self._tick(look_for_silent=drained)

    def feed(self, event: Event) -> None:
        """Ask the round about an event, and do what it says."""
        self._events.append(event)
        self._drain()

    def _drain(self) -> None:
        """Handle the events that wait; losses found on the way become events too."""
        if self._feeding:
            return
        self._feeding = True
        try:
            self._notice_losses()
            while self._events:
                now = self._parts.clock.now()
                for effect in self._round.on(self._events.popleft(), now):
                    self._parts.hands.execute(effect)
                self._notice_losses()
        finally:
            self._feeding = False
        self._write_down()

    def _done(self) -> bool:
        if self._ended_at is None:
            return False
        patience = STOP_SECONDS if self._stopping else LINGER_SECONDS
        seen = self._stopping and (self._parts.desk.end_seen or self._parts.hands.moves)
        return seen or self._parts.clock.now() - self._ended_at > patience

    def _receive(self) -> bool:
        """Take what waits, up to a burst; True when nothing is left."""
        for _ in range(_BURST):
            received = self._parts.link.receive()
            if received is None:
                return True
            route, frames = received
            peer = self._parts.peers.by_route(route)
            try:
                self._intake.take(route, frames, self._parts.clock.now())
            except (Rejected, FrameError) as error:
                self._parts.refuser.refuse(route, peer, error)
            if self._parts.post.lost:
                self._drain()
        return False

    def _notice_losses(self) -> None:
        """Turn connections that broke, and members sent home, into events."""
        parts = self._parts
        while parts.post.lost:
            peer, detail = parts.post.lost.popleft()
            if not parts.peers.forget(peer):
                continue
            if parts.hands.gradients is not None:
                parts.hands.gradients.leave(peer.member)
            parts.joining.gone(peer)
            if peer.in_round:
                self._events.append(Left(peer.member, detail))
        dismissed = parts.hands.dismissed
        self._events.extend(Left(member, "sent home") for member in dismissed)
        dismissed.clear()

    def _obey(self) -> None:
        """Take over the newest desired state, and the signals."""
        desired = self._parts.desk.take()
        if desired is not None:
            self._desired = desired
            self._take_over(desired)
            self.feed(desire_of(desired))
        asked, signalled = desired is not None and desired.stop, self._parts.stop.count > 0
        if asked or (signalled and not self._stopping):
            self._stopping = True
            # Who stops a job says so; a bare SIGTERM means this process alone, as when its node is drained.
            self._parts.hands.taken_away = not asked
            self.feed(desire_of(self._desired, stop=True))

    def _take_over(self, desired: Desired) -> None:
        members = frozenset(Member(m.rank, m.attempt) for m in desired.members)
        self._parts.joining.desired = members
        self._parts.joining.release_undesired()
        self._parts.joining.iteration = self._round.iteration
        self._parts.peers.keep_starts(members)
        self._parts.publisher.applied = desired.order

    def _write_down(self) -> None:
        """Write the checkpoint that has come due; at the end, everything."""
        parts = self._parts
        if parts.hands.finished is None:
            if parts.hands.model is not None:
                parts.saver.save_when_due(self._round.iteration, parts.hands.model)
        elif self._ended_at is None:
            self._ended_at = parts.clock.now()
            parts.hands.end(self._round.iteration)
            self.show()
            write_last_words(encode_ending(parts.publisher.status(self._round, self._ended_at)))

    def _tick(self, *, look_for_silent: bool) -> None:
        parts, now = self._parts, self._parts.clock.now()
        if now - self._ticked < _TICK_SECONDS:
            return
        self._ticked = now
        parts.joining.iteration = self._round.iteration
        if look_for_silent:  # what a busy loop has yet to read is not silence
            self._lose_unresponsive(now)
        self.feed(Tick())
        parts.publisher.publish(self._round, now)

    def _lose_unresponsive(self, now: float) -> None:
        for peer, why in self._parts.peers.unresponsive(now, self._parts.wire):
            self._parts.post.lose(peer, why)


def desire_of(desired: Desired, *, stop: bool = False) -> Desire:
    """Return the round's view of a desired state."""
    return Desire(
        desired.members,
        desired.workers,
        desired.backup_workers,
        desired.suspend,
        desired.stop or stop,
        tuple(Member(*pair) for pair in desired.restart),
    )
