"""Whatever comes in is a message or a FrameError: nothing else ever leaves the decoder."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_examples import EVERY

from backupsync.wire.frames import FrameError, decode_from_aggregator, decode_from_worker, encode
from backupsync.wire.messages import RefusalCode

READERS = (decode_from_worker, decode_from_aggregator)
PREFIX = b"BSYN\x01"


def check_total(said):
    """Whatever comes in is a message or a FrameError: nothing else leaves the decoder."""
    for read in READERS:
        try:
            message, payload = read(said, 64)
        except FrameError as error:
            assert isinstance(error.code, RefusalCode)
            assert error.detail
        else:
            assert type(message) in {type(m) for m in EVERY.values()}
            assert payload is None or len(payload) <= 64


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=4))
def test_random_frames_raise_nothing_but_frame_errors(said):
    check_total(said)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_behind_a_good_prefix_raise_nothing_but_frame_errors(body):
    check_total([PREFIX + body])


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(sorted(EVERY)), st.data())
def test_a_mangled_message_raises_nothing_but_frame_errors(name, data):
    header = bytearray(encode(EVERY[name])[0])
    for _ in range(data.draw(st.integers(1, 4))):
        if not header:
            break
        at = data.draw(st.integers(0, len(header) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert", "delete"])):
            case "flip":
                header[at] ^= data.draw(st.integers(1, 255))
            case "cut":
                del header[at + 1 :]
            case "insert":
                header[at:at] = data.draw(st.binary(min_size=1, max_size=8))
            case "delete":
                del header[at : at + data.draw(st.integers(1, 8))]
    check_total([header])


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=20)
    | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(EVERY)), st.data())
def test_a_message_with_fields_of_other_kinds_raises_nothing_but_frame_errors(name, data):
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(EVERY[name]))
    field = data.draw(st.sampled_from(sorted(fields)))
    check_total([PREFIX + msgspec.msgpack.encode(fields | {field: data.draw(json_like)})])
