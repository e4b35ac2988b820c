"""The join, from HELLO to a seat in the round; and the job's first parameters, where there are none yet."""

import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from backupsync.spec import WireSpec
from backupsync.wire import messages as wire
from backupsync.wire.auth import aggregator_proof
from backupsync.wire.frames import Buffer
from backupsync.wire.schema import Schema
from backupsync_aggregator.hands import Hands
from backupsync_aggregator.network import admission
from backupsync_aggregator.network.admission import Rejected
from backupsync_aggregator.network.initial import InitialState
from backupsync_aggregator.network.peers import Peer, Peers
from backupsync_aggregator.network.post import Post
from backupsync_aggregator.network.refusing import Refuser
from backupsync_aggregator.round import events
from backupsync_aggregator.round.events import Member

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identity:
    """Which job this is, and who it must be proven to."""

    uid: str
    key: bytes
    epoch: int
    wire: WireSpec


@dataclass(frozen=True)
class Given:
    """The initial state as one member gave it."""

    state: InitialState
    digest: str
    batches_per_epoch: int | None


class Joining:
    """Lets peers in, or not."""

    def __init__(self, identity: Identity, peers: Peers, post: Post, hands: Hands, refuser: Refuser) -> None:
        self.desired: frozenset[Member] = frozenset()
        """Pairs of the desired state."""
        self.iteration = 0
        """Updates applied so far."""
        self.on_given: Callable[[Given], None]
        """Called with the initial state once it is whole."""
        self.feed: Callable[[events.Event], None]
        self._identity = identity
        self._refuser = refuser
        self._peers = peers
        self._post = post
        self._hands = hands
        self._sender: Peer | None = None
        self._initial: InitialState | None = None

    def payload_limit(self, peer: Peer | None) -> int:
        """Return how many bytes of payload a message of `peer` may carry."""
        if peer is None:
            return 0
        if peer.in_round and self._hands.gradients is not None:
            return self._hands.gradients.largest_payload
        return self._identity.wire.chunk_bytes if peer is self._sender else 0

    def on_hello(self, route: bytes, hello: wire.Hello, now: float) -> None:
        """Challenge a newcomer (or a member that speaks again on its connection). Raises Rejected."""
        with _speaking_of(hello):
            admission.check_hello(hello, self._identity.uid)
        challenge = wire.Challenge(secrets.token_bytes(32), self._identity.epoch)
        peer = Peer(route, hello, challenge, seen=now)
        self._peers.greet(peer)
        self._post.send(peer, challenge)

    def on_proof(self, route: bytes, proof: wire.Proof, now: float) -> None:
        """Let in who holds the key and is desired. Raises Rejected."""
        peer = self._peers.unproven(route)
        if peer is None:
            raise Rejected(wire.RefusalCode.NOT_JOINED, "say HELLO first")
        with _speaking_of(peer.hello):
            self._admit(peer, proof, now)
        if self._hands.finished is not None:
            self._hands.bid_farewell(peer.member)
        elif self._hands.model is not None and not peer.lost:
            self._enter(peer)

    def on_initial(self, peer: Peer, message: wire.Initial, payload: Buffer | None) -> None:
        """Take a chunk of the initial state from the member that was asked for it. Raises Rejected."""
        self._asked(peer).put(message, payload)

    def on_initial_done(self, peer: Peer, message: wire.InitialDone) -> None:
        """Begin with the initial state, if it is whole; else ask another member. Raises Rejected."""
        state = self._asked(peer)
        self._sender = self._initial = None
        try:
            self.on_given(Given(state, state.close(message), message.batches_per_epoch))
        except Rejected:
            self._sender = peer  # once it is gone, another is asked
            self._post.lose(peer, "its initial state cannot be used")
            raise

    def enter_all(self, schema: Schema) -> None:
        """Seat everyone who waited for the parameters; those with another model are refused."""
        for peer in self._peers:
            try:
                admission.check_same_model(schema, peer.schema or schema, peer.hello.rank)
            except Rejected as error:
                self._peers.forget(peer)
                self._refuser.refuse(peer.route, peer, error)
            else:
                self._enter(peer)

    def release_undesired(self) -> None:
        """Send home who waits for the first parameters but is desired no more: the round does not know it."""
        for peer in self._peers:
            if not peer.in_round and peer.member not in self.desired:
                self._hands.send_home(peer.member, "scaled", "the job no longer asks for it")
                self.gone(peer)

    def gone(self, peer: Peer) -> None:
        """Note that a member is gone; if it was to give the initial state, have another do it."""
        if peer is not self._sender:
            return
        self._sender = self._initial = None
        heir = next(iter(self._peers), None)
        if heir is not None:
            # Only a WELCOME asks for the initial state: the heir joins anew, and is then the first.
            _log.info("rank %d is gone before its initial state came; asking another", peer.hello.rank)
            self._peers.forget(heir)
            self._refuser.refuse(
                heir.route,
                heir,
                Rejected(wire.RefusalCode.NOT_JOINED, "join again: your parameters are needed"),
            )

    def _admit(self, peer: Peer, proof: wire.Proof, now: float) -> None:
        hello, identity = peer.hello, self._identity
        admission.check_proof(identity.key, hello, peer.challenge, proof)
        current = self._peers.of(peer.member)
        said = current.hello if current else None
        admission.check_membership(hello, self.desired, said, self._peers.highest_start(peer.member))
        schema = admission.check_model(hello, proof, identity.wire)
        self._check_same(schema, hello.rank)
        if current is not None:
            self._supersede(current, peer)
        peer.seen, peer.schema = now, schema
        first = self._needs_initial() and self._ask(peer, schema)
        self._peers.admit(peer)
        mac = aggregator_proof(identity.key, hello, peer.challenge)
        self._post.send(peer, wire.Welcome(mac, identity.epoch, self.iteration, first))
        self._refuser.forgive(peer)

    def _check_same(self, schema: Schema, rank: int) -> None:
        if self._hands.model is not None:
            admission.check_same_model(self._hands.model.schema, schema, rank)

    def _needs_initial(self) -> bool:
        return self._hands.model is None and self._hands.finished is None and self._sender is None

    def _ask(self, peer: Peer, schema: Schema) -> bool:
        """Make this peer the one that gives the initial state. Raises Rejected when there is no room."""
        try:
            self._initial = InitialState(schema, self._identity.wire.chunk_bytes)
        except (MemoryError, OverflowError) as error:
            detail = "the aggregator has no memory for a model of this size"
            raise Rejected(wire.RefusalCode.UNSUPPORTED, detail) from error
        self._sender = peer
        return True

    def _supersede(self, old: Peer, new: Peer) -> None:
        """Take the pair's connection over; a second process of it is told."""
        self._peers.forget(old)
        if self._hands.gradients is not None:
            self._hands.gradients.leave(old.member)
        if old is self._sender:
            self._sender = self._initial = None
        if old.hello.incarnation != new.hello.incarnation:
            detail = f"start {new.hello.start} of this rank and attempt has joined"
            self._refuser.refuse(old.route, old, Rejected(wire.RefusalCode.DUPLICATE, detail))

    def _asked(self, peer: Peer) -> InitialState:
        if peer is not self._sender or self._initial is None:
            raise Rejected(wire.RefusalCode.MALFORMED, "nobody asked for your initial state")
        return self._initial

    def _enter(self, peer: Peer) -> None:
        peer.in_round, peer.schema = True, None
        self.feed(events.Joined(peer.member, peer.hello.start))
        if peer.ready is not None and not peer.lost:
            self.feed(events.Ready(peer.member, peer.ready.holds))
            peer.ready = None


@contextmanager
def _speaking_of(hello: wire.Hello) -> Iterator[None]:
    """Name the peer in what it is refused for: it has no seat yet by which it could be known."""
    try:
        yield
    except Rejected as error:
        error.peer = f"rank {hello.rank} attempt {hello.attempt}"
        raise
