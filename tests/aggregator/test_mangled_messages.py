"""Whatever a peer sends is refused and counted, nothing partial is accepted, and training goes on."""

import secrets

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backupsync.wire import messages as wire
from backupsync.wire.auth import worker_proof
from backupsync.wire.frames import FrameError, decode_from_worker, encode
from backupsync.wire.schema import chunks
from backupsync_aggregator.network.limits import WARNINGS_PER_MINUTE

BYTES, CHUNK = 12000, 4096
LONG = {"training": {"iterations": 1_000_000}, "checkpoint": {"everyIterations": 1_000_000}}


@pytest.fixture
def training(start, join):
    """An aggregator that trains with two healthy peers, who make iterations on demand."""
    aggregator = start(LONG)
    healthy = [join(aggregator, rank) for rank in range(2)]

    def train_on() -> None:
        before = aggregator.status().iteration
        for peer in healthy:
            peer.answer(peer.assigned())
            peer.said.clear()
        aggregator.until_status(lambda s: s.iteration > before, "another iteration")

    train_on()
    return aggregator, train_on


def fence(peer) -> list:
    """Return everything said in answer to what was sent so far: a HELLO is always answered, in order."""
    peer.said.clear()
    peer.send(peer.hello)
    peer.expect(wire.Challenge)
    return peer.said[:-1]


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"HTTP/1.1 200 OK"],
        [b"BSYN\x01"],
        [b"BSYN\x01\xff\xff"],
        [b"BSYN\x01" + b"\x91" * 100_000],
        [b"BSYN\x01\x81\xa2op\xa6pickle"],
        [b"BSYN\x01\x82\xa2op\xa9heartbeat\xa8progress\xff"],
        [b"x" * (16 * 1024 * 1024 + 1)],
        [bytes(frame) for frame in encode(wire.Heartbeat(0, "data"), b"payload")],
        [bytes(frame) for frame in encode(wire.Heartbeat(0, "data"), bytes(CHUNK + 1))],
        [*(bytes(frame) for frame in encode(wire.Ready(0), b"x")), b"y"],
        [b"BSYN\x01"] * 50,
    ],
    ids=lambda frames: f"{len(frames)} frames, {sum(map(len, frames))} bytes",
)
@pytest.mark.parametrize("joined", [True, False], ids=["member", "stranger"])
def test_what_is_no_message_is_refused_as_malformed(training, join, frames, joined):
    aggregator, train_on = training
    peer = join(aggregator, 2, joined=joined)
    before = aggregator.refused("malformed")
    peer.send_raw(frames)
    answers = [m for m in fence(peer) if isinstance(m, wire.Refused)]
    assert [a.code for a in answers] == [wire.RefusalCode.MALFORMED]
    assert aggregator.refused("malformed") == before + 1
    train_on()


def test_another_protocol_is_refused_as_such(training, join):
    aggregator, train_on = training
    peer = join(aggregator, 2, joined=False)
    peer.send_raw([b"BSYN\x02\x80"])
    assert peer.expect(wire.Refused).code == wire.RefusalCode.PROTOCOL
    train_on()


@pytest.mark.parametrize("skip", [0, 4096, 8192])
def test_a_gradient_that_lacks_a_chunk_is_refused_and_a_fresh_ticket_issued(training, join, skip):
    aggregator, train_on = training
    peer = join(aggregator, 2)
    assign = peer.assigned()
    peer.push(assign, skip=skip)
    peer.commit(assign)
    verdict = peer.expect(wire.Verdict)
    assert (verdict.outcome, verdict.reason) == (wire.Outcome.REFUSED, wire.Reason.INCOMPLETE)
    again = peer.expect(wire.Assign)
    assert (again.iteration, again.ticket > assign.ticket) == (assign.iteration, True)
    assert peer.answer(again).outcome is wire.Outcome.ACCEPTED
    train_on()


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_gradient_that_is_not_finite_is_refused(training, join, value):
    import numpy as np

    aggregator, train_on = training
    peer = join(aggregator, 2)
    assign = peer.assigned()
    data = np.zeros(3000, dtype=np.float32)
    data[-1] = float(value)
    peer.push(assign, data.tobytes())
    peer.commit(assign)
    assert peer.expect(wire.Verdict).reason is wire.Reason.NOT_FINITE
    train_on()


@pytest.mark.parametrize(
    "changes",
    [{"examples": 0}, {"scale": -1.0}, {"scale": 2.0}, {"scale": float("nan")}, {"absent": (99,)}],
    ids=str,
)
def test_a_commit_that_contradicts_itself_is_refused_and_leaves_the_trace_readable(
    training, join, changes, tmp_path
):
    from backupsync.trace import read_trace

    aggregator, train_on = training
    peer = join(aggregator, 2)
    assign = peer.assigned()
    peer.push(assign)
    peer.commit(assign, **changes)
    assert peer.expect(wire.Verdict).outcome is wire.Outcome.REFUSED
    train_on()
    aggregator.stop()
    assert list(read_trace(tmp_path / "trace.jsonl"))


ANYWHERE = st.integers(0, 2**16)
"""Taken modulo a length: how long a header is changes with the iteration, what is drawn must not."""


def mangled(draw: st.DrawFn, messages: list[list[bytes]]) -> list[list[bytes]]:
    """Return the messages after one accident."""
    index = draw(st.integers(0, len(messages) - 1))
    frames = list(messages[index])
    frame = draw(st.integers(0, len(frames) - 1))
    accident = draw(st.sampled_from(["flip", "truncate", "extend", "lose", "double", "headless", "surplus"]))
    out = list(messages)
    if accident == "lose":
        del out[index]
        return out
    if accident == "double":
        out.insert(index, frames)
        return out
    if accident == "flip":
        position = draw(ANYWHERE) % len(frames[0])
        bit = draw(st.integers(0, 7))
        raw = bytearray(frames[0])
        raw[position] ^= 1 << bit
        frames[0] = bytes(raw)
    elif accident == "truncate":
        frames[frame] = frames[frame][: draw(ANYWHERE) % max(1, len(frames[frame]))]
    elif accident == "extend":
        frames[frame] += draw(st.binary(min_size=1, max_size=100))
    elif accident == "headless":
        frames = frames[1:] or [b""]
    else:
        frames.append(b"surplus")
    out[index] = frames
    return out


def is_whole(messages: list[list[bytes]], assign: wire.Assign) -> bool:
    """Say, by the protocol alone, whether a COMMIT of the ticket found every chunk in place."""
    missing = dict(chunks(BYTES, CHUNK))
    for frames in messages:
        try:
            message, payload = decode_from_worker(frames, CHUNK)
        except FrameError:
            continue
        same = (getattr(message, "iteration", None), getattr(message, "ticket", None)) == (
            assign.iteration,
            assign.ticket,
        )
        if isinstance(message, wire.Chunk) and same and payload is not None:
            if missing.get(message.offset) == len(payload):
                del missing[message.offset]
        elif isinstance(message, wire.Commit) and same:
            return not missing
    return False


def is_malformed(frames: list[bytes]) -> bool:
    try:
        decode_from_worker(frames, CHUNK)
    except FrameError as error:
        return error.code == wire.RefusalCode.MALFORMED
    return False


@pytest.mark.timeout(120)
def test_any_accident_to_a_members_messages_is_survived_and_nothing_partial_is_accepted(training, join):
    aggregator, train_on = training
    incarnation = secrets.token_bytes(32)
    peer = join(aggregator, 2, incarnation=incarnation)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def survive(data: st.DataObject) -> None:
        peer.held = -1
        peer.join()
        assign = peer.assigned()
        gradient = peer.gradient()
        recorded = [encode(wire.Ready(peer.held)), encode(wire.Heartbeat(1, "compute"))]
        recorded += [
            encode(wire.Chunk(assign.iteration, assign.ticket, 0, offset), gradient[offset : offset + size])
            for offset, size in chunks(BYTES, CHUNK)
        ]
        said = {"scale": 1.0, "examples": 4, "finite": True, "norm": 1.0, "loss": 0.5}
        recorded.append(encode(wire.Commit(1, 1, assign.iteration, assign.ticket, **said)))
        whole = [[bytes(frame) for frame in frames] for frames in recorded]
        sent = data.draw(st.composite(mangled)(whole))
        refused = aggregator.refused("malformed")
        for frames in sent:
            peer.send_raw(frames)
        answers = fence(peer)
        verdicts = [m for m in answers if isinstance(m, wire.Verdict) and m.ticket == assign.ticket]
        if any(v.outcome is wire.Outcome.ACCEPTED for v in verdicts):
            assert is_whole(sent, assign)
        malformed = sum(map(is_malformed, sent))
        assert aggregator.refused("malformed") >= refused + malformed
        train_on()

    survive()


@pytest.mark.timeout(120)
def test_any_accident_to_the_join_is_survived_and_only_a_true_proof_lets_in(training, join):
    aggregator, train_on = training

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def survive(data: st.DataObject) -> None:
        peer = join(aggregator, 2, joined=False)
        for frames in data.draw(st.composite(mangled)([[bytes(f) for f in encode(peer.hello)]])):
            peer.send_raw(frames)
        peer.send(peer.hello)
        while not isinstance(challenge := peer.expect(wire.Challenge), wire.Challenge):
            pass
        proof = wire.Proof(worker_proof(peer.key, peer.hello, challenge), peer.entries)
        for frames in data.draw(st.composite(mangled)([[bytes(f) for f in encode(proof)]])):
            peer.send_raw(frames)
        answers = fence(peer)
        assert sum(isinstance(m, wire.Welcome) for m in answers) <= 1
        peer.close()

    survive()
    train_on()


def test_a_stranger_who_calls_itself_ever_anew_does_not_fill_the_log(training, join, caplog):
    aggregator, train_on = training
    stranger = join(aggregator, 0, joined=False)
    for attempt in range(1, 301):
        hello = msgspec.structs.replace(stranger.hello, job="another job", attempt=attempt)
        stranger.send(hello)
        assert stranger.expect(wire.Refused).code == wire.RefusalCode.WRONG_JOB
    train_on()
    said = [record for record in caplog.records if "refused" in record.getMessage()]
    assert len(said) == WARNINGS_PER_MINUTE + 1
    assert aggregator.refused("wrong-job") == 300
