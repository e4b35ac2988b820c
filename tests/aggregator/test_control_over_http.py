"""What the engine says over HTTP, and what it is told."""

import json
import socket
from contextlib import ExitStack, closing
from http.client import HTTPConnection

import msgspec
import pytest

from backupsync.launch import control_token
from backupsync.wire import messages as wire


@pytest.fixture
def aggregator(start):
    return start()


def test_without_the_jobs_control_token_nothing_is_taken(aggregator, desired_state):
    state = desired_state(generation=2)
    body = msgspec.json.encode(state)
    assert aggregator.http("/control", body)[0] == 401
    assert aggregator.tell(state, token="guess")[0] == 401
    assert aggregator.tell(state, token=control_token(b"x" * 32))[0] == 401
    assert aggregator.status().applied == (0, 1)


def test_a_newer_state_is_applied_and_echoed(aggregator, desired_state):
    code, body = aggregator.tell(desired_state(generation=5))
    assert (code, json.loads(body)) == (200, {"applied": [0, 5]})
    aggregator.until_status(lambda s: s.applied == (0, 5), "the newer state")


def test_an_older_state_is_refused_with_the_one_in_force(aggregator, desired_state):
    aggregator.tell(desired_state(generation=5))
    code, body = aggregator.tell(desired_state(generation=4))
    assert (code, json.loads(body)) == (409, {"applied": [0, 5]})


def test_the_same_state_may_be_said_again(aggregator, desired_state):
    assert [aggregator.tell(desired_state(generation=3))[0] for _ in range(2)] == [200, 200]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"term": 0}',
        b"[" * 100_000,
        b'{"term":0,"generation":9,"members":[],"workers":0,"backup_workers":0}',
        b'{"term":0,"generation":9,"members":[{"rank":-1,"attempt":1}],"workers":1,"backup_workers":0}',
        b'{"term":0,"generation":9,"members":[],"workers":1,"backup_workers":0,"surprise":1}',
    ],
)
def test_a_malformed_state_is_a_bad_request(aggregator, body):
    code, answer = aggregator.http("/control", body, control_token(bytes(range(32))))
    assert code == 400
    assert json.loads(answer)["error"]
    assert aggregator.status().applied == (0, 1)


def test_a_body_beyond_the_limit_is_not_read(aggregator):
    connection = HTTPConnection("127.0.0.1", aggregator.port, timeout=20)
    with closing(connection):
        connection.putrequest("POST", "/control")
        connection.putheader("Authorization", f"Bearer {control_token(bytes(range(32)))}")
        connection.putheader("Content-Length", str(1024 * 1024 + 1))
        connection.endheaders()
        assert connection.getresponse().status == 413


def test_connections_that_never_end_their_request_keep_nobody_from_being_served(aggregator, capfd):
    with ExitStack() as slow:
        address = ("127.0.0.1", aggregator.port)
        held = [slow.enter_context(socket.create_connection(address)) for _ in range(100)]
        for connection in held:
            connection.sendall(b"GET /status HTTP/1.1\r\nX-Slow: ")
        assert aggregator.http("/healthz") == (200, b"ok\n")
        held[0].settimeout(20)
        assert held[0].recv(1) == b"", "the oldest gave way"
    assert aggregator.http("/healthz") == (200, b"ok\n")
    assert "Traceback" not in capfd.readouterr().err


def test_unknown_pages_are_not_found_and_health_is_told(aggregator):
    assert aggregator.http("/nonesuch")[0] == 404
    assert aggregator.http("/control")[0] == 404
    assert aggregator.http("/healthz") == (200, b"ok\n")


def test_the_status_names_the_members_and_what_they_did(aggregator, join):
    peers = [join(aggregator, rank) for rank in range(2)]
    for peer, assign in [(p, p.assigned()) for p in peers]:
        peer.send(wire.Heartbeat(1, "push"))
        peer.push(assign)
        peer.commit(assign, loss=0.25 + peer.hello.rank, metrics={"accuracy": 0.5 + peer.hello.rank / 2})
        peer.expect(wire.Verdict)
    status = aggregator.until_status(lambda s: s.iteration == 1 and s.loss is not None, "an iteration")
    assert (status.phase, status.required, status.backups) == ("Training", 2, 1)
    assert (status.loss, status.metrics) == (0.75, {"accuracy": 0.75})
    assert (status.examples, status.examples_total, status.iterations_total) == (8, 24, 3)
    assert [(m.rank, m.state, m.accepted, m.phase) for m in status.members] == [
        (0, "Live", 1, "push"),
        (1, "Live", 1, "push"),
    ]


def test_numbers_that_json_cannot_carry_leave_the_status_readable(aggregator, join):
    peers = [join(aggregator, rank) for rank in range(2)]
    for peer, assign in [(p, p.assigned()) for p in peers]:
        peer.push(assign)
        peer.commit(assign, loss=float("nan"), metrics={"bad": float("inf"), "good": 1.0})
        peer.expect(wire.Verdict)
    status = aggregator.until_status(lambda s: s.iteration == 1, "an iteration")
    assert status.metrics == {"good": 1.0}


def test_n_and_b_change_while_the_job_runs(aggregator, join, desired_state):
    peers = [join(aggregator, rank) for rank in range(3)]
    aggregator.tell(desired_state(workers=3, backups=0, generation=2))
    aggregator.until_status(lambda s: s.applied == (0, 2), "the new state")
    for _ in range(2):
        for peer, assign in [(p, p.assigned()) for p in peers]:
            peer.answer(assign)
    aggregator.until_status(lambda s: (s.required, s.backups) == (3, 0), "N=3, b=0")


def test_a_member_asked_to_restart_is_told_so_once(aggregator, join, desired_state):
    peer = join(aggregator, 0)
    aggregator.until_status(lambda s: s.members, "the member")
    aggregator.tell(desired_state(restart=((0, 1),), generation=2))
    assert peer.expect(wire.Leave).why == "restart"
    again = join(aggregator, 0, start=1)
    join(aggregator, 1)
    assert again.assigned().iteration == 0


def test_stop_dismisses_everyone_and_ends_the_process_with_success(aggregator, join, desired_state):
    peer = join(aggregator, 0)
    aggregator.until_status(lambda s: s.members, "the member")
    aggregator.tell(desired_state(stop=True, generation=2))
    assert peer.expect(wire.Leave).why == "suspended"
    assert aggregator.exit_code() == 0


def test_metrics_speak_the_words_of_the_trace(aggregator, join):
    peers = [join(aggregator, rank) for rank in range(3)]
    assigns = [peer.assigned() for peer in peers]
    for peer, assign in zip(peers, assigns, strict=True):
        peer.answer(assign)
    aggregator.until_status(lambda s: s.iteration == 1, "an iteration")
    gradients = 'backupsync_gradients_total{{outcome="{}",rank="{}",reason="{}"}}'
    assert aggregator.metric(gradients.format("accepted", 0, "")) == 1
    assert aggregator.metric(gradients.format("dropped", 2, "late")) == 1
    aggregator.until(lambda: aggregator.metric("backupsync_iteration") == 1, "the iteration gauge")
    assert aggregator.metric("backupsync_iterations_total") == 1
    assert aggregator.metric("backupsync_examples_applied_total") == 8
    assert aggregator.metric("backupsync_examples_dropped_total") == 4
    assert aggregator.metric('backupsync_aggregator_phase{phase="Training"}') == 1
    assert aggregator.metric('backupsync_workers{state="Live"}') == 3
    assert aggregator.metric("backupsync_required_gradients") == 2
    assert aggregator.metric("backupsync_received_bytes_total") > 3 * 12000
    assert aggregator.metric("backupsync_sent_bytes_total") > 3 * 12000
