"""Frames: what is read back is what was sent; whatever else comes is refused with a code."""

import struct

import msgspec
import pytest
from wire_examples import EVERY, FROM_AGGREGATOR, FROM_WORKER

from backupsync.wire import frames
from backupsync.wire.frames import FrameError, decode_from_aggregator, decode_from_worker, encode
from backupsync.wire.messages import Heartbeat, Hello, RefusalCode

READERS = (decode_from_worker, decode_from_aggregator)
PREFIX = b"BSYN\x01"


def reader(name):
    return decode_from_worker if name in FROM_WORKER else decode_from_aggregator


def refused(said, limit=1024, read=decode_from_worker):
    with pytest.raises(FrameError) as caught:
        read(said, limit)
    return caught.value


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("payload", [None, b"", b"\x00" * 1024])
def test_a_message_is_read_back_as_it_was_sent(name, payload):
    assert reader(name)(encode(EVERY[name], payload), 1024) == (EVERY[name], payload)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_kind_of_buffer_is_read(kind):
    header = kind(bytes(encode(Heartbeat(progress=1, phase="data"))[0]))
    assert decode_from_worker([header], 0)[0] == Heartbeat(progress=1, phase="data")


def test_the_payload_is_passed_through_without_a_copy():
    payload = memoryview(bytearray(64))
    sent = encode(FROM_WORKER["chunk"], payload)
    assert sent[1] is payload
    assert decode_from_worker(sent, 64)[1] is payload


@pytest.mark.parametrize("name", EVERY)
def test_neither_side_takes_the_others_words(name):
    other = decode_from_aggregator if name in FROM_WORKER else decode_from_worker
    assert refused(encode(EVERY[name]), read=other).code == RefusalCode.MALFORMED


def test_a_payload_beyond_the_bound_is_refused():
    error = refused(encode(FROM_WORKER["chunk"], bytes(1025)))
    assert (error.code, error.detail) == (RefusalCode.MALFORMED, "payload of 1025 bytes exceeds 1024")


def test_a_header_beyond_the_bound_is_refused_before_it_is_read(monkeypatch):
    monkeypatch.setattr(frames, "MAX_HEADER_BYTES", 100)
    assert "header of 105 bytes exceeds 100" in refused([PREFIX + bytes(100)]).detail


@pytest.mark.parametrize("count", [0, 3, 4])
def test_a_message_has_one_or_two_frames(count):
    assert f"not {count}" in refused([PREFIX] * count).detail


@pytest.mark.parametrize("header", [b"", b"BSY", b"XSYN\x01\x80", b"\x80\x04\x95pickle"])
def test_without_the_magic_number_nothing_is_read(header):
    error = refused([header])
    assert error.code == RefusalCode.MALFORMED
    assert "magic number" in error.detail


OTHER_VERSIONS = [(b"BSYN", "None"), (b"BSYN\x02\x80", "2"), (b"BSYN\x00", "0")]


@pytest.mark.parametrize(("header", "version"), OTHER_VERSIONS)
def test_another_protocol_version_is_refused_by_its_own_code(header, version):
    error = refused([header])
    assert (error.code, error.detail) == (RefusalCode.PROTOCOL, f"protocol {version}, this side speaks 1")


def packed(**fields):
    return [PREFIX + msgspec.msgpack.encode(fields)]


HEARTBEAT = {"op": "heartbeat", "progress": 1, "phase": "data"}


@pytest.mark.parametrize(
    "change",
    [
        {"op": "exec"}, {"op": 1}, {"extra": 1}, {"progress": -1}, {"progress": 2**62 + 1},
        {"progress": 2**64 - 1},
        {"progress": 1.5}, {"progress": "1"}, {"progress": True}, {"progress": None}, {"phase": "x" * 513},
        {"phase": b"data"}, {"phase": {}},
    ],
    ids=str,
)  # fmt: skip
def test_a_field_of_the_wrong_kind_or_out_of_bounds_is_refused(change):
    assert decode_from_worker(packed(**HEARTBEAT), 0)
    assert refused(packed(**(HEARTBEAT | change))).code == RefusalCode.MALFORMED


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("hello", {"rank": 2000}), ("hello", {"nonce": bytes(31)}), ("hello", {"incarnation": bytes(33)}),
        ("hello", {"job": "j" * 513}), ("proof", {"mac": b""}), ("chunk", {"shard": 1}),
        ("initial", {"section": "optimizer"}), ("commit", {"metrics": {str(i): 1.0 for i in range(65)}}),
        ("commit", {"absent": list(range(100_001))}), ("commit", {"metrics": {"a": "b"}}),
        ("commit", {"timing": {"compute": 1.0, "sleep": 1.0}}), ("evaluated", {"error": "e" * 4097}),
        ("proof", {"schema": [{"name": "w", "dtype": "object", "shape": [1], "role": "trainable"}]}),
        ("proof", {"schema": [{"name": "w", "dtype": "float32", "shape": [-1], "role": "trainable"}]}),
        ("proof", {"schema": [{"name": "w", "dtype": "float32", "shape": [1] * 17, "role": "trainable"}]}),
        ("proof", {"schema": [{"name": "w", "dtype": "float32", "shape": [1], "role": "optimizer"}]}),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)  # fmt: skip
def test_every_bound_of_a_message_is_held(name, change):
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(FROM_WORKER[name]))
    assert decode_from_worker(packed(**fields), 0)[0] == FROM_WORKER[name]
    assert refused(packed(**(fields | change))).code == RefusalCode.MALFORMED


def test_a_missing_field_is_named():
    assert "`phase`" in refused(packed(op="heartbeat", progress=1)).detail


@pytest.mark.parametrize(
    "body",
    [
        b"\xdd\xff\xff\xff\xff",  # an array of 2^32 - 1 elements that never come
        b"\xdf\xff\xff\xff\xff",  # a map as large
        b"\xc6\xff\xff\xff\xff",  # bytes as large
        b"\xc9\x00\x00\x00\x01\x05\x00",  # an extension type
        b"\xc1",  # never used
        b"\x91" * 100_000,  # nested beyond any stack
        b"\x81\xa2op" + b"\x91" * 100_000,
        b"\x81\xa2op\xa2\xff\xff",  # a string that is not UTF-8
        b"\x81\xa2\xff\xff\xa1a",
        b"\x81\x81\xa1a\x01\x01",  # a map for a key
    ],
    ids=lambda body: body[:6].hex(),
)
@pytest.mark.parametrize("read", READERS)
def test_hostile_msgpack_is_refused(body, read):
    assert refused([PREFIX + body], read=read).code == RefusalCode.MALFORMED


def test_trailing_bytes_are_refused():
    assert refused([encode(FROM_WORKER["ready"])[0] + b"\x00"]).code == RefusalCode.MALFORMED


@pytest.mark.parametrize("name", EVERY)
def test_every_truncation_of_a_message_is_refused(name):
    header = bytes(encode(EVERY[name])[0])
    for length in range(len(header)):
        assert refused([header[:length]], read=reader(name))


def test_numbers_that_are_not_finite_reach_the_checks_behind_the_frames():
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(FROM_WORKER["commit"]))
    message, _ = decode_from_worker(packed(**(fields | {"loss": float("nan")})), 0)
    assert struct.pack(">d", message.loss) == struct.pack(">d", float("nan"))


def test_a_hello_for_the_largest_rank_and_attempt_is_taken():
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(FROM_WORKER["hello"]))
    message, _ = decode_from_worker(packed(**(fields | {"rank": 1999, "attempt": 2**62})), 0)
    assert isinstance(message, Hello)
    assert (message.rank, message.attempt) == (1999, 2**62)


def test_no_message_shares_its_tag_with_another():
    tags = [type(m).__struct_config__.tag for m in (*FROM_WORKER.values(), *FROM_AGGREGATOR.values())]
    assert len(set(tags)) == len({type(m) for m in EVERY.values()})
