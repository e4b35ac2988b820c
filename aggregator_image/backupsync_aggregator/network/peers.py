"""Who is connected: peers that have yet to prove themselves (few, and not for long) and members."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from backupsync.spec import WireSpec
from backupsync.wire.messages import Challenge, Hello, Ready
from backupsync.wire.schema import Schema
from backupsync_aggregator.network.limits import DISMISSED_LIMIT, JOIN_SECONDS, UNPROVEN_LIMIT
from backupsync_aggregator.round.events import Member


@dataclass(eq=False, slots=True)
class Peer:
    """One connection."""

    route: bytes
    hello: Hello
    challenge: Challenge
    seen: float
    """When it last said anything, by the job's clock."""
    progress: int = -1
    """What its last heartbeat counted."""
    moved: float = field(init=False)
    """When its working thread was last seen to get on."""
    schema: Schema | None = None
    """Its model, until that is known to be the job's."""
    in_round: bool = False
    """The round knows it as joined."""
    lost: bool = False
    """A message could not be delivered: nothing more is sent."""
    frozen_sent: bool = False
    phase: str = "starting"
    ready: Ready | None = field(default=None)
    """What it said while the job had no parameters yet."""

    def __post_init__(self) -> None:
        self.moved = self.seen

    def beat(self, progress: int) -> None:
        """Take note of a heartbeat, which any thread of the worker may send."""
        if progress != self.progress:
            self.progress, self.moved = progress, self.seen

    @property
    def member(self) -> Member:
        """The pair it claims, and has proven once it is among the members."""
        return Member(self.hello.rank, self.hello.attempt)

    @property
    def name(self) -> str:
        """What people call it."""
        return f"rank {self.hello.rank} attempt {self.hello.attempt}"


class Peers:
    """Every connection, by its routing id and, for members, by (rank, attempt)."""

    def __init__(self) -> None:
        self._unproven: dict[bytes, Peer] = {}
        self._routes: dict[bytes, Peer] = {}
        self._members: dict[Member, Peer] = {}
        self._starts: dict[Member, int] = {}
        self._dismissed: dict[bytes, None] = {}

    def greet(self, peer: Peer) -> None:
        """Remember a peer that was challenged."""
        self._dismissed.pop(peer.route, None)
        self._unproven.pop(peer.route, None)
        self._unproven[peer.route] = peer
        while len(self._unproven) > UNPROVEN_LIMIT:
            del self._unproven[next(iter(self._unproven))]

    def unproven(self, route: bytes) -> Peer | None:
        """Return and forget the challenged peer behind `route`: a challenge is answered once."""
        return self._unproven.pop(route, None)

    def is_unproven(self, route: bytes) -> bool:
        """Whether `route` has been challenged and not answered yet."""
        return route in self._unproven

    def admit(self, peer: Peer) -> None:
        """Make the peer the one that speaks for its pair."""
        self._routes[peer.route] = peer
        self._members[peer.member] = peer
        self._starts[peer.member] = max(peer.hello.start, self._starts.get(peer.member, 0))

    def forget(self, peer: Peer) -> bool:
        """Drop a member's connection; False when it was no longer the pair's."""
        self._routes.pop(peer.route, None)
        if self._members.get(peer.member) is not peer:
            return False
        del self._members[peer.member]
        return True

    def dismiss(self, peer: Peer) -> None:
        """Drop the connection of a member that was sent home; what it still says needs no answer."""
        self.forget(peer)
        self._dismissed[peer.route] = None
        while len(self._dismissed) > DISMISSED_LIMIT:
            del self._dismissed[next(iter(self._dismissed))]

    def was_dismissed(self, route: bytes) -> bool:
        """Whether the connection belonged to a member that was sent home."""
        return route in self._dismissed

    def by_route(self, route: bytes) -> Peer | None:
        """Return the member behind a routing id."""
        return self._routes.get(route)

    def of(self, member: Member) -> Peer | None:
        """Return the connection of a pair."""
        return self._members.get(member)

    def highest_start(self, member: Member) -> int:
        """Return the highest start that has joined for the pair, -1 for none."""
        return self._starts.get(member, -1)

    def keep_starts(self, members: frozenset[Member]) -> None:
        """Forget the history of pairs that are no longer desired."""
        self._starts = {m: s for m, s in self._starts.items() if m in members}

    def unresponsive(self, now: float, wire: WireSpec) -> Iterator[tuple[Peer, str]]:
        """Yield members that are silent or hang, and why; unproven ones are let go as well."""
        for route, peer in list(self._unproven.items()):
            if now - peer.seen > JOIN_SECONDS:
                del self._unproven[route]
        for peer in list(self._members.values()):
            if now - peer.seen > wire.timeout_seconds:
                yield peer, f"silent for {wire.timeout_seconds:g} s"
            elif now - peer.moved > wire.stall_seconds:
                yield peer, f"hangs in phase {peer.phase}: no progress for {wire.stall_seconds:g} s"

    def __iter__(self) -> Iterator[Peer]:
        return iter(list(self._members.values()))

    def __len__(self) -> int:
        return len(self._members)
