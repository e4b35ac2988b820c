"""A gradient on its way in: every chunk once, where it belongs, at its exact size, and finite."""

import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backupsync.spec import JobSpec, WireDtype, WireSpec
from backupsync.wire import messages as wire
from backupsync.wire.schema import Schema, chunks
from backupsync_aggregator.network.admission import Rejected
from backupsync_aggregator.network.assembly import Assembly
from backupsync_aggregator.network.gradients import Gradients, all_finite
from backupsync_aggregator.round.events import Member
from backupsync_aggregator.tensors.model_state import ModelState

MEMBER = Member(0, 1)
CHUNK = 4096
MASK = struct.pack("<2f", 0.0, float("-inf"))
SPEC = JobSpec.model_validate(
    {
        "program": {"entrypoint": "program:Program"},
        "aggregation": {"workers": 1},
        "training": {"iterations": 1, "batchSize": 1, "optimizer": {"name": "SGD", "lr": 0.1}},
    }
)


def gradients(dtype: WireDtype = WireDtype.FLOAT32, *, buffers: bool = False) -> Gradients:
    model = [wire.TensorEntry("w", "float32", (3000,), "trainable")]
    if buffers:
        model.append(wire.TensorEntry("mean", "float32", (4,), "buffer"))
        model.append(wire.TensorEntry("mask", "float32", (2,), "buffer"))
        model.append(wire.TensorEntry("seen", "int64", (), "buffer"))
    schema = Schema(tuple(model))
    moving = bytearray(schema.section_bytes(schema.moving))
    mask = next((slot for slot in schema.moving if slot.entry.name == "mask"), None)
    if mask is not None:
        moving[mask.offset : mask.offset + mask.size] = MASK
    state = ModelState.initial(schema, SPEC, moving, b"")
    return Gradients(schema, WireSpec(chunk_bytes=CHUNK, dtype=dtype), state.sound_buffers)


def commit(ticket: int = 7, **changes) -> wire.Commit:
    said = {"scale": 1.0, "examples": 4, "finite": True, "norm": 1.0, "loss": 1.0, "epoch": 1, "attempt": 1}
    return wire.Commit(iteration=3, ticket=ticket, **(said | changes))


def send(inbound: Gradients, data: bytes, ticket: int = 7, skip: int | None = None) -> None:
    for offset, size in chunks(len(data), CHUNK):
        if offset != skip:
            inbound.put(MEMBER, wire.Chunk(3, ticket, 0, offset), data[offset : offset + size])


def test_all_chunks_make_a_whole_gradient_with_the_sent_values():
    inbound, values = gradients(), torch.arange(3000.0)
    inbound.expect(MEMBER, 3, 7)
    send(inbound, values.numpy().tobytes())
    assert inbound.commit(MEMBER, commit(), None) == (True, True)
    torch.testing.assert_close(inbound.held(MEMBER, 7).flat, values)


def test_a_missing_chunk_makes_it_incomplete():
    inbound = gradients()
    inbound.expect(MEMBER, 3, 7)
    send(inbound, bytes(12000), skip=4096)
    assert inbound.commit(MEMBER, commit(), None) == (False, True)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", list(WireDtype))
@pytest.mark.parametrize("index", [0, 1500, 2999])
def test_one_value_that_is_not_finite_is_found_in_any_chunk(value, dtype, index):
    inbound = gradients(dtype)
    inbound.expect(MEMBER, 3, 7)
    values = torch.zeros(3000, dtype=getattr(torch, dtype.value))
    values[index] = value
    send(inbound, bytes(values.view(torch.uint8).numpy()))
    assert inbound.commit(MEMBER, commit(), None) == (True, False)


def test_huge_values_whose_sum_overflows_are_finite():
    assert all_finite(torch.full((1000,), 3e38))
    assert not all_finite(torch.tensor([float("inf"), float("-inf")]))


def test_chunks_that_nobody_asked_for_are_discarded_and_counted():
    inbound = gradients()
    inbound.put(MEMBER, wire.Chunk(3, 7, 0, 0), bytes(CHUNK))
    inbound.expect(MEMBER, 3, 7)
    for iteration, ticket in ((2, 7), (3, 8)):
        inbound.put(MEMBER, wire.Chunk(iteration, ticket, 0, 0), bytes(CHUNK))
    inbound.put(Member(0, 2), wire.Chunk(3, 7, 0, 0), bytes(CHUNK))
    assert inbound.discarded == 4
    assert inbound.commit(MEMBER, commit(), None) == (False, True)


def test_nothing_of_a_former_ticket_is_left_in_the_next():
    inbound = gradients()
    inbound.expect(MEMBER, 3, 7)
    send(inbound, bytes(12000), skip=0)
    inbound.expect(MEMBER, 3, 8)
    send(inbound, bytes(12000), ticket=8, skip=8192)
    assert inbound.commit(MEMBER, commit(8), None) == (False, True)


def test_an_accepted_gradient_stays_through_a_new_connection_until_it_is_applied():
    inbound = gradients()
    inbound.expect(MEMBER, 3, 7)
    send(inbound, torch.ones(3000).numpy().tobytes())
    inbound.commit(MEMBER, commit(), None)
    inbound.keep(MEMBER, 7)
    inbound.leave(MEMBER)
    inbound.drop(MEMBER, 7)
    inbound.expect(MEMBER, 4, 9)
    assert inbound.held(MEMBER, 7).flat.sum() == 3000
    inbound.release(MEMBER, 7)
    with pytest.raises(KeyError):
        inbound.held(MEMBER, 7)


def test_a_commit_of_another_ticket_closes_nothing():
    inbound = gradients()
    inbound.expect(MEMBER, 3, 7)
    send(inbound, bytes(12000))
    assert inbound.commit(MEMBER, commit(8), None) == (False, True)
    assert inbound.commit(MEMBER, commit(7), None) == (True, True)


@pytest.mark.parametrize("payload", [None, b"", bytes(191), bytes(193)])
def test_buffers_of_another_size_are_refused(payload):
    inbound = gradients(buffers=True)
    inbound.expect(MEMBER, 3, 7)
    send(inbound, bytes(12000))
    with pytest.raises(Rejected, match="192"):
        inbound.commit(MEMBER, commit(), payload)


def test_a_model_without_buffers_takes_none():
    inbound = gradients()
    inbound.expect(MEMBER, 3, 7)
    with pytest.raises(Rejected, match="buffers"):
        inbound.commit(MEMBER, commit(), b"x")


@pytest.mark.parametrize(
    ("mean", "mask", "seen", "sound"),
    [
        (bytes(16), MASK, b"\xff" * 8, True),
        (b"\xff" * 16, MASK, bytes(8), False),
        (bytes(16), b"\xff" * 8, bytes(8), False),
    ],
    ids=["a constant -inf and any integer are sound", "NaN", "a mask that became NaN"],
)
def test_floating_buffers_must_be_finite_or_unchanged(mean, mask, seen, sound):
    inbound = gradients(buffers=True)
    inbound.expect(MEMBER, 3, 7)
    send(inbound, bytes(12000))
    data = b"".join(part.ljust(64, b"\0") for part in (mean, mask, seen))
    assert inbound.commit(MEMBER, commit(), data) == (True, sound)


def test_absent_must_name_tensors_of_the_model():
    inbound = gradients()
    inbound.expect(MEMBER, 3, 7)
    with pytest.raises(Rejected, match="absent"):
        inbound.commit(MEMBER, commit(absent=(1,)), None)


@pytest.mark.parametrize(
    ("offset", "size"), [(1, 4095), (4096, 4095), (8192, 3809), (12288, 0), (2**61, 4096)]
)
def test_a_chunk_at_another_place_or_of_another_size_is_refused(offset, size):
    with pytest.raises(Rejected):
        Assembly(12000, CHUNK).put(offset, bytes(size))


def test_a_repeated_chunk_is_refused_and_changes_nothing():
    assembly = Assembly(12000, CHUNK)
    assembly.put(0, b"a" * CHUNK)
    with pytest.raises(Rejected, match="twice"):
        assembly.put(0, b"b" * CHUNK)
    assert bytes(assembly.data[:CHUNK]) == b"a" * CHUNK


@given(st.integers(1, 40_000), st.randoms(use_true_random=False))
def test_chunks_may_come_in_any_order(total, order):
    data = bytes(order.getrandbits(8) for _ in range(min(total, 64))).ljust(total, b"z")
    assembly = Assembly(total, CHUNK)
    pieces = list(chunks(total, CHUNK))
    order.shuffle(pieces)
    for offset, size in pieces:
        assert not assembly.whole
        assembly.put(offset, data[offset : offset + size])
    assert assembly.whole
    assert bytes(assembly.data) == data
