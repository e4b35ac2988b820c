"""Peers that freeze, vanish or flood cost little: one version of the parameters, one seat, one timeout."""

import itertools
import secrets

from backupsync.spec import WireSpec
from backupsync.wire import messages as wire
from backupsync_aggregator.network.limits import DISMISSED_LIMIT, JOIN_SECONDS, UNPROVEN_LIMIT
from backupsync_aggregator.network.peers import Peer, Peers
from backupsync_aggregator.round.events import Member

LONG = {"training": {"iterations": 1000}}
IMPATIENT = {
    "training": {"iterations": 1000},
    "aggregation": {"wire": {"chunkBytes": 4096, "heartbeatSeconds": 0.1, "timeoutSeconds": 0.5}},
}


def peer_of(rank: int = 0, seen: float = 0.0) -> Peer:
    hello = wire.Hello("u", rank, 1, 0, secrets.token_bytes(32), 1, bytes(32), bytes(32))
    return Peer(secrets.token_bytes(5), hello, wire.Challenge(bytes(32), 1), seen)


def test_a_frozen_peer_costs_one_version_of_the_parameters(start, join):
    aggregator = start(LONG)
    healthy = [join(aggregator, rank) for rank in range(2)]
    frozen = join(aggregator, 2)
    frozen.ready()
    for _ in range(10):
        for peer, assign in [(p, p.assigned()) for p in healthy]:
            peer.answer(assign)
    aggregator.until_status(lambda s: s.iteration == 10, "ten iterations")
    frozen.send(frozen.hello)
    frozen.expect(wire.Challenge)
    versions = {m.iteration for m in frozen.said if isinstance(m, wire.Parameters)}
    assert len(versions) == 1
    stale = [m for m in frozen.said if isinstance(m, wire.Stale)]
    assert len(stale) == 1


def test_a_silent_member_is_lost_and_may_come_back(start, join):
    aggregator = start(IMPATIENT)
    incarnation = secrets.token_bytes(32)
    peer = join(aggregator, 0, incarnation=incarnation)
    aggregator.until_status(lambda s: [m.state for m in s.members] == ["Live"], "the member")
    aggregator.until_status(lambda s: [m.state for m in s.members] == ["Lost"], "its loss")
    peer.send(wire.Heartbeat(1, "data"))
    assert peer.expect(wire.Refused).code == wire.RefusalCode.NOT_JOINED
    peer.join()
    aggregator.until_status(lambda s: [m.state for m in s.members] == ["Live"], "its return")


def test_heartbeats_keep_a_member_that_computes_for_long(start, join):
    aggregator = start(IMPATIENT)
    quiet, beating = join(aggregator, 0), join(aggregator, 1)

    def lost() -> bool:
        beating.send(wire.Heartbeat(1, "compute"))
        return [m.state for m in aggregator.status().members] == ["Lost", "Live"]

    aggregator.until(lost, "the loss of the quiet one alone")
    assert quiet.quiet()


def test_a_member_that_lives_but_gets_nowhere_hangs_and_is_lost(start, join):
    wire_spec = {"chunkBytes": 4096, "heartbeatSeconds": 0.1, "timeoutSeconds": 0.5, "stallSeconds": 0.5}
    aggregator = start({"training": {"iterations": 1000}, "aggregation": {"wire": wire_spec}})
    hanging, slow = join(aggregator, 0), join(aggregator, 1)
    passed = itertools.count()

    def lost() -> bool:
        hanging.send(wire.Heartbeat(7, "compute"))
        slow.send(wire.Heartbeat(next(passed), "compute"))
        return [m.state for m in aggregator.status().members] == ["Lost", "Live"]

    aggregator.until(lost, "the loss of the one whose progress stands still")


def test_a_member_whose_process_is_gone_is_lost_at_the_next_word_to_it(start, join, desired_state):
    aggregator = start(LONG)
    gone, other = join(aggregator, 0), join(aggregator, 1)
    gone.assigned()
    other.assigned()
    gone.socket.close(0)
    aggregator.tell(desired_state(generation=2, restart=((0, 1),)))
    aggregator.until_status(lambda s: [m.state for m in s.members] == ["Lost", "Live"], "its loss")


def test_a_goodbye_is_a_loss_at_once(start, join):
    aggregator = start(LONG)
    join(aggregator, 0).send(wire.Goodbye("the program raised"))
    aggregator.until_status(lambda s: [m.state for m in s.members] == ["Lost"], "its loss")


def test_the_job_below_n_at_its_deadline_fails_with_the_reason(start, join):
    hasty = {"aggregation": {"belowQuorum": {"policy": "Wait", "deadlineSeconds": 0.5}}}
    aggregator = start(hasty)
    peer = join(aggregator, 0)
    assert peer.expect(wire.Leave).why == "failed"
    status = aggregator.until_status(lambda s: s.phase == "Failed", "failure")
    assert status.reason == "BelowQuorum"
    late = join(aggregator, 1)
    assert late.expect(wire.Leave).why == "failed"
    assert aggregator.stop() == 1


def test_unproven_peers_are_bounded_and_the_oldest_forgotten():
    peers, known = Peers(), [peer_of() for _ in range(UNPROVEN_LIMIT + 1)]
    for peer in known:
        peers.greet(peer)
    assert not peers.is_unproven(known[0].route)
    assert all(peers.is_unproven(peer.route) for peer in known[1:])


def test_an_unproven_peer_is_forgotten_after_its_deadline():
    peers, peer = Peers(), peer_of(seen=100.0)
    peers.greet(peer)
    list(peers.unresponsive(100.0 + JOIN_SECONDS, WireSpec()))
    assert peers.is_unproven(peer.route)
    list(peers.unresponsive(100.1 + JOIN_SECONDS, WireSpec()))
    assert not peers.is_unproven(peer.route)


def test_dismissed_connections_are_remembered_up_to_a_bound():
    peers, first = Peers(), peer_of()
    for peer in (first, *(peer_of(rank) for rank in range(DISMISSED_LIMIT))):
        peers.admit(peer)
        peers.dismiss(peer)
    assert not peers.was_dismissed(first.route)
    assert len(peers) == 0


def test_forgetting_an_old_connection_leaves_the_new_one_in_place():
    peers, old, new = Peers(), peer_of(), peer_of()
    peers.admit(old)
    peers.forget(old)
    peers.admit(new)
    assert not peers.forget(old)
    assert peers.of(Member(0, 1)) is new
