"""Who a worker lets itself be led by, and how it answers being turned away."""

import secrets

import pytest
import zmq

from backupsync.errors import BackupSyncError, Refused
from backupsync.exits import Exit
from backupsync.wire.auth import aggregator_proof, matches, worker_proof
from backupsync.wire.messages import Challenge, Hello, Proof, Ready, RefusalCode, Stale, Verdict, Welcome
from backupsync_worker.connection.link import ConnectionLost, resolve
from backupsync_worker.connection.membership import exit_code

QUICK = {"workers": 2, "wire": {"heartbeatSeconds": 0.05, "timeoutSeconds": 0.4}}


def finish(aggregator, worker):
    aggregator.receive(Ready)
    aggregator.dismiss()
    worker.join()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (RefusalCode.DUPLICATE, Exit.FENCED),
        (RefusalCode.WRONG_KEY, Exit.CONFIGURATION),
        (RefusalCode.WRONG_JOB, Exit.CONFIGURATION),
        (RefusalCode.PROTOCOL, Exit.CONFIGURATION),
        (RefusalCode.SCHEMA, Exit.BAD_INPUT),
        (RefusalCode.UNSUPPORTED, Exit.BAD_INPUT),
        (RefusalCode.MALFORMED, Exit.CRASHED),
    ],
)
def test_a_refusal_ends_the_worker_with_its_own_exit_code(aggregator, start, code, expected):
    worker = start()
    aggregator.refuse(code, "because")
    with pytest.raises(Refused, match="because") as caught:
        worker.join()
    assert exit_code(caught.value) == expected


def test_a_newcomer_outlasts_not_a_member_until_the_engine_has_spoken(aggregator, start):
    worker = start()
    aggregator.refuse(RefusalCode.NOT_A_MEMBER)
    aggregator.refuse(RefusalCode.NOT_A_MEMBER)
    aggregator.welcome()
    finish(aggregator, worker)


def test_a_newcomer_that_stays_no_member_is_fenced(aggregator, start):
    worker = start({"aggregation": QUICK})
    while worker.thread.is_alive():
        if aggregator.socket.poll(20):
            aggregator.refuse(RefusalCode.NOT_A_MEMBER)
    with pytest.raises(Refused) as caught:
        worker.join()
    assert exit_code(caught.value) == Exit.FENCED


def test_a_former_member_that_is_none_any_more_is_fenced_at_once(aggregator, start):
    worker = start()
    aggregator.welcome()
    aggregator.receive(Ready)
    aggregator.shut()
    aggregator.open()
    aggregator.refuse(RefusalCode.NOT_A_MEMBER)
    with pytest.raises(Refused):
        worker.join()


def test_a_worker_may_be_started_before_its_aggregator(aggregator, start):
    aggregator.shut()
    worker = start()
    assert worker.thread.is_alive()
    aggregator.open()
    aggregator.welcome()
    finish(aggregator, worker)


def test_hello_is_repeated_on_new_connections_until_it_is_answered(aggregator, start):
    worker = start({"aggregation": QUICK | {"wire": {"heartbeatSeconds": 0.05, "timeoutSeconds": 2}}})
    first = aggregator.receive(Hello)
    route = aggregator.route
    second = aggregator.receive(Hello)
    assert aggregator.route != route
    assert first.incarnation == second.incarnation
    assert first.nonce != second.nonce
    aggregator.welcome()
    finish(aggregator, worker)


def test_an_aggregator_without_the_key_is_not_believed(aggregator, start):
    worker = start()
    hello, challenge = aggregator.greet()
    aggregator.receive(Proof)
    aggregator.say(Welcome(aggregator_proof(secrets.token_bytes(32), hello, challenge), 1, 0, False))
    aggregator.welcome()
    finish(aggregator, worker)


def test_an_aggregator_cannot_raise_its_epoch_after_proving_itself(aggregator, start):
    worker = start()
    hello, challenge = aggregator.greet(epoch=1)
    aggregator.receive(Proof)
    aggregator.say(Welcome(aggregator_proof(aggregator.key, hello, challenge), 7, 0, False))
    aggregator.welcome(epoch=1)
    finish(aggregator, worker)


def test_an_epoch_that_was_only_claimed_does_not_count(aggregator, start):
    worker = start()
    aggregator.greet(epoch=99)
    aggregator.receive(Proof)
    aggregator.say(Welcome(secrets.token_bytes(32), 99, 0, False))
    aggregator.welcome(epoch=1)
    finish(aggregator, worker)


@pytest.mark.parametrize("nonsense", [Stale(0), Verdict(0, 0, "dropped")])
def test_an_answer_that_is_no_challenge_is_not_followed(aggregator, start, nonsense):
    worker = start()
    aggregator.receive(Hello)
    aggregator.say(nonsense)
    aggregator.welcome()
    finish(aggregator, worker)


def test_bytes_that_are_no_message_end_the_connection_not_the_worker(aggregator, start):
    worker = start()
    aggregator.receive(Hello)
    aggregator.socket.send_multipart([aggregator.route, b"BSYN\x01\xff\xff"])
    aggregator.welcome()
    aggregator.receive(Ready)
    aggregator.socket.send_multipart([aggregator.route, b"GET / HTTP/1.1"])
    aggregator.welcome()
    finish(aggregator, worker)


def test_the_proof_is_bound_to_everything_the_hello_said(aggregator, start):
    worker = start()
    hello, challenge = aggregator.greet()
    proof = aggregator.receive(Proof)
    other = Hello(**{f: getattr(hello, f) for f in hello.__struct_fields__} | {"rank": 2})
    assert matches(worker_proof(aggregator.key, hello, challenge), proof.mac)
    assert not matches(worker_proof(aggregator.key, other, challenge), proof.mac)
    again = Challenge(secrets.token_bytes(32), 1)
    assert not matches(worker_proof(aggregator.key, hello, again), proof.mac)
    aggregator.say(Welcome(aggregator_proof(aggregator.key, hello, challenge), 1, 0, False))
    finish(aggregator, worker)


def test_a_worker_told_to_stop_before_it_has_joined_ends_well(aggregator, start):
    worker = start()
    aggregator.receive(Hello)
    worker.stop.requested = True
    with pytest.raises(SystemExit) as caught:
        worker.join()
    assert caught.value.code == Exit.SUCCESS
    assert worker.session.exit_code == Exit.SUCCESS


class TestCurve:
    """`security.encryption: Curve`: the keys of both sides follow from the job's key."""

    @pytest.fixture
    def aggregator(self, endpoint, key, scripted):
        peer = scripted(endpoint, key, curve=True)
        yield peer
        peer.close()

    def test_a_whole_iteration_travels_encrypted(self, aggregator, start):
        worker = start({"security": {"encryption": "Curve"}})
        aggregator.welcome()
        assert aggregator.one_iteration(0, 0)[0].finite
        finish(aggregator, worker)

    def test_a_worker_without_encryption_does_not_get_through(self, aggregator, start):
        worker = start({"aggregation": QUICK})
        assert not aggregator.socket.poll(500)
        worker.stop.requested = True
        with pytest.raises(SystemExit):
            worker.join()


def test_an_unreadable_key_is_an_error_that_names_the_file(launch_of, start):
    worker = None
    with pytest.raises(BackupSyncError, match=r"job key file .*missing"):
        worker = start(key_file="/nonexistent/missing")
    assert worker is None


class TestAddresses:
    """Host names are resolved here: libzmq would do it once, silently."""

    def test_a_name_becomes_an_address(self):
        assert resolve("tcp://localhost:80") in ("tcp://127.0.0.1:80", "tcp://[::1]:80")

    def test_several_addresses_are_tried_in_turn(self, monkeypatch):
        found = [(2, 1, 6, "", ("10.0.0.1", 80)), (10, 1, 6, "", ("fd00::1", 80, 0, 0))]
        monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: found)
        assert [resolve("tcp://a:80", turn) for turn in range(3)] == [
            "tcp://10.0.0.1:80", "tcp://[fd00::1]:80", "tcp://10.0.0.1:80",
        ]  # fmt: skip

    def test_an_ipv6_address_keeps_its_brackets(self):
        assert resolve("tcp://[::1]:80") == "tcp://[::1]:80"

    def test_a_path_stays_as_it_is(self):
        assert resolve("ipc:///tmp/a") == "ipc:///tmp/a"

    @pytest.mark.parametrize("endpoint", ["tcp://host.invalid:80", "tcp://127.0.0.1:http!"])
    def test_what_cannot_be_resolved_is_a_lost_connection(self, endpoint, monkeypatch):
        def fail(*_, **__):
            raise OSError("no such host")

        monkeypatch.setattr("socket.getaddrinfo", fail)
        with pytest.raises(ConnectionLost, match="tcp://"):
            resolve(endpoint)


def test_tcp_works_as_ipc_does(start, key, scripted):
    peer = scripted("tcp://127.0.0.1:*", key)
    try:
        worker = start(endpoint=peer.socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode())
        peer.welcome()
        assert peer.one_iteration(0, 0)[0].finite
        finish(peer, worker)
    finally:
        peer.close()
