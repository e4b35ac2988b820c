"""Who is let in, and what those who are not are told."""

import secrets

import pytest

from backupsync.control import DesiredMember
from backupsync.wire import messages as wire


@pytest.fixture
def aggregator(start):
    return start()


def test_a_member_with_the_key_is_welcomed_and_the_first_is_asked_for_its_parameters(aggregator, join):
    assert join(aggregator, 0, joined=False).join().send_initial
    welcome = join(aggregator, 1, joined=False).join()
    assert (welcome.send_initial, welcome.epoch, welcome.iteration) == (False, 1, 0)


@pytest.mark.parametrize(
    ("traits", "code", "names"),
    [
        ({"key": b"x" * 32}, wire.RefusalCode.WRONG_KEY, "key"),
        ({"job": "another"}, wire.RefusalCode.WRONG_JOB, "another"),
        ({"protocol": 2}, wire.RefusalCode.PROTOCOL, "protocol 1"),
        ({"attempt": 2}, wire.RefusalCode.NOT_A_MEMBER, "its attempts are [1]"),
    ],
)
def test_a_stranger_is_refused_with_the_reason(aggregator, join, traits, code, names):
    refusal = join(aggregator, 0, joined=False, **traits).refusal()
    assert refusal.code == code
    assert names in refusal.detail
    status = aggregator.until_status(lambda s: s.refusals, "the refusal in the status")
    assert [(r.code, r.count) for r in status.refusals] == [(code, 1)]
    aggregator.until(lambda: aggregator.refused(code) == 1, "the refusal in the metrics")


def test_a_rank_outside_the_job_is_refused(aggregator, join):
    refusal = join(aggregator, 7, joined=False).refusal()
    assert refusal.code == wire.RefusalCode.NOT_A_MEMBER
    assert "rank is not in the job" in refusal.detail


def test_equal_refusals_are_one_line_with_a_count(aggregator, join):
    for _ in range(3):
        join(aggregator, 7, joined=False).refusal()
    status = aggregator.until_status(
        lambda s: s.refusals and s.refusals[0].count == 3, "three refusals as one"
    )
    assert [r.peer for r in status.refusals] == ["rank 7 attempt 1"]


def test_a_refusal_is_forgotten_once_the_peer_is_let_in(aggregator, join):
    join(aggregator, 1, joined=False, key=b"x" * 32).refusal()
    aggregator.until_status(lambda s: s.refusals, "the refusal")
    join(aggregator, 1)
    aggregator.until_status(lambda s: not s.refusals, "no refusal")


def test_a_second_process_of_a_live_member_is_refused_as_duplicate(aggregator, join):
    first = join(aggregator, 0)
    refusal = join(aggregator, 0, joined=False).refusal()
    assert refusal.code == wire.RefusalCode.DUPLICATE
    assert "live process" in refusal.detail
    join(aggregator, 1)
    assert first.assigned().iteration == 0


def test_a_reconnect_of_the_same_process_takes_over_and_its_old_connection_is_nobody(aggregator, join):
    incarnation = secrets.token_bytes(32)
    old = join(aggregator, 0, incarnation=incarnation)
    join(aggregator, 1)
    old.assigned()
    new = join(aggregator, 0, incarnation=incarnation)
    assert new.assigned().iteration == 0
    old.ready()
    assert old.expect(wire.Refused).code == wire.RefusalCode.NOT_JOINED


def test_a_restart_in_place_takes_over_and_the_old_process_is_told(aggregator, join):
    old = join(aggregator, 0)
    new = join(aggregator, 0, start=1)
    assert old.expect(wire.Refused).code == wire.RefusalCode.DUPLICATE
    join(aggregator, 1)
    assert new.assigned().iteration == 0
    aggregator.until_status(lambda s: s.members and s.members[0].start == 1, "the higher start")


def test_a_revenant_of_an_earlier_start_is_refused_even_when_its_successor_is_gone(aggregator, join):
    join(aggregator, 0)
    new = join(aggregator, 0, start=1)
    new.send(wire.Goodbye("bye"))
    aggregator.until_status(lambda s: s.members and s.members[0].state == "Lost", "the successor's end")
    assert join(aggregator, 0, joined=False, start=0).refusal().code == wire.RefusalCode.DUPLICATE


def test_whoever_speaks_before_joining_is_told_to_join(aggregator, join):
    stranger = join(aggregator, 0, joined=False)
    for message in (wire.Ready(-1), wire.Heartbeat(0, "data"), wire.Proof(b"m" * 32, stranger.entries)):
        stranger.send(message)
        assert stranger.expect(wire.Refused).code == wire.RefusalCode.NOT_JOINED


def test_a_challenge_is_answered_once(aggregator, join):
    peer = join(aggregator, 0, joined=False)
    peer.prove()
    peer.expect(wire.Welcome)
    peer.send_raw(peer.sent[-1])
    assert peer.expect(wire.Refused).code == wire.RefusalCode.NOT_JOINED


def test_another_model_than_the_jobs_is_refused_with_the_tensor_and_the_rank(aggregator, join):
    join(aggregator, 0)
    aggregator.until_status(lambda s: s.members, "the first member's seat")
    refusal = join(
        aggregator, 1, joined=False, entries=(wire.TensorEntry("w", "float32", (5,), "trainable"),)
    ).refusal()
    assert refusal.code == wire.RefusalCode.SCHEMA
    for word in ("rank 1", "'w'", "[5]", "[3000]"):
        assert word in refusal.detail


def test_a_member_that_waited_with_another_model_is_refused_when_the_jobs_is_known(aggregator, join):
    first = join(aggregator, 0, joined=False)
    first.prove()
    assert first.expect(wire.Welcome).send_initial
    other = join(aggregator, 1, entries=(wire.TensorEntry("w", "float32", (5,), "trainable"),))
    first.give_initial()
    assert other.expect(wire.Refused).code == wire.RefusalCode.SCHEMA


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        ((wire.TensorEntry("w", "float32", (5,), "frozen"),), wire.RefusalCode.UNSUPPORTED),
        ((), wire.RefusalCode.UNSUPPORTED),
        ((wire.TensorEntry("w", "float32", (2**50,), "trainable"),), wire.RefusalCode.UNSUPPORTED),
        ((wire.TensorEntry("w", "float32", (5,), "trainable"),) * 2, wire.RefusalCode.MALFORMED),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused(aggregator, join, entries, code):
    assert join(aggregator, 0, joined=False, entries=entries).refusal().code == code


def test_a_schema_that_is_not_the_one_of_hello_is_malformed(aggregator, join):
    peer = join(aggregator, 0, joined=False)
    peer.entries = (wire.TensorEntry("v", "float32", (5,), "trainable"),)
    assert peer.refusal().code == wire.RefusalCode.MALFORMED


def test_a_member_minted_later_is_let_in_once_the_desired_state_says_so(aggregator, join, desired_state):
    assert join(aggregator, 3, joined=False).refusal().code == wire.RefusalCode.NOT_A_MEMBER
    assert aggregator.tell(desired_state((0, 1), (1, 1), (2, 1), (3, 1), generation=2))[0] == 200
    join(aggregator, 3)


def test_a_candidate_is_promoted_by_its_first_gradient_and_its_predecessor_sent_home(
    aggregator, join, desired_state
):
    old, other = join(aggregator, 0), join(aggregator, 1)
    old.assigned()
    aggregator.tell(desired_state((0, 1), (1, 1), DesiredMember(0, 2, candidate=True), generation=2))
    aggregator.until_status(lambda s: s.applied == (0, 2), "the candidate in the desired state")
    new = join(aggregator, 0, attempt=2)
    verdict = new.answer(new.assigned())
    assert verdict.outcome is wire.Outcome.ACCEPTED
    assert old.expect(wire.Leave).why == "fenced"
    assert other.answer(other.assigned()).place == 1


def test_who_waits_for_the_first_parameters_but_is_desired_no_more_is_sent_home(
    aggregator, join, desired_state
):
    first = join(aggregator, 0, joined=False)
    first.prove()
    first.expect(wire.Welcome)
    waiting = join(aggregator, 1)
    aggregator.tell(desired_state((1, 1), (2, 1), generation=2))
    assert first.expect(wire.Leave).why == "scaled"
    assert waiting.expect(wire.Refused).code == wire.RefusalCode.NOT_JOINED
    assert waiting.join().send_initial
