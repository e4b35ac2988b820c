"""A model as the wire sees it: flat layouts without overlap, and a hash that tells models apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupsync.wire.messages import TensorEntry
from backupsync.wire.schema import ALIGNMENT, ITEM_BYTES, Schema, chunks, elements


def entry(name, shape=(2,), role="trainable", dtype="float32", aliases=()):
    return TensorEntry(name=name, dtype=dtype, shape=shape, role=role, aliases=aliases)


MODEL = Schema((
    entry("a", (2, 3)),
    entry("frozen", (5,), "frozen", "bfloat16"),
    entry("b", (4,), dtype="bfloat16"),
    entry("mean", (3,), "buffer"),
    entry("count", (), "buffer", "int64"),
))  # fmt: skip


def layout(slots):
    return [(slot.entry.name, slot.offset, slot.size) for slot in slots]


def test_the_moving_section_holds_trainable_tensors_then_buffers_each_aligned():
    assert layout(MODEL.moving) == [("a", 0, 24), ("b", 64, 8), ("mean", 128, 12), ("count", 192, 8)]
    assert MODEL.section_bytes(MODEL.moving) == 256


def test_the_frozen_section_holds_the_rest():
    assert layout(MODEL.frozen) == [("frozen", 0, 10)]
    assert MODEL.section_bytes(MODEL.frozen) == 64


def test_the_payload_of_a_commit_holds_the_buffers_alone():
    assert layout(MODEL.buffer_section) == [("mean", 0, 12), ("count", 64, 8)]


def test_the_gradient_stands_in_the_order_that_backward_finishes_it():
    assert [(s.entry.name, s.position, s.offset, s.size) for s in MODEL.gradient] == [
        ("b", 1, 0, 4),
        ("a", 0, 4, 6),
    ]
    assert MODEL.gradient_elements == 10


def test_a_scalar_has_one_element_and_an_empty_section_no_bytes():
    assert elements(entry("x", ())) == 1
    assert elements(entry("x", (3, 0))) == 0
    assert Schema(()).section_bytes(()) == 0


tensors = st.builds(
    TensorEntry,
    name=st.uuids().map(str),
    dtype=st.sampled_from(sorted(ITEM_BYTES)),
    shape=st.lists(st.integers(0, 9), max_size=3).map(tuple),
    role=st.sampled_from(["trainable", "frozen", "buffer"]),
)
models = st.lists(tensors, max_size=12).map(lambda entries: Schema(tuple(entries)))


@given(models)
def test_no_two_tensors_of_a_section_overlap_and_all_are_aligned(schema):
    for slots in (schema.moving, schema.frozen, schema.buffer_section):
        end = 0
        for slot in slots:
            assert slot.offset >= end
            assert slot.offset % ALIGNMENT == 0
            assert slot.size == elements(slot.entry) * ITEM_BYTES[slot.entry.dtype]
            end = slot.offset + slot.size
        assert schema.section_bytes(slots) % ALIGNMENT == 0
        assert schema.section_bytes(slots) >= end


@given(models)
def test_every_tensor_stands_in_exactly_one_section_and_gradients_leave_no_gap(schema):
    names = [slot.entry.name for slot in (*schema.moving, *schema.frozen)]
    assert sorted(names) == sorted(e.name for e in schema.entries)
    end = 0
    for slot in schema.gradient:
        assert slot.offset == end
        assert schema.trainable[slot.position] == slot.entry
        end += slot.size
    assert end == schema.gradient_elements


@given(st.integers(0, 10_000), st.integers(1, 4096))
def test_chunks_cover_a_flat_array_once_and_in_order(total, size):
    end = 0
    for offset, length in chunks(total, size):
        assert offset == end
        assert 0 < length <= size
        end += length
    assert end == total


CHANGES = {
    "tensor 'b' is missing": lambda e: [x for x in e if x.name != "b"],
    "tensor 'new' is not in the job's model": lambda e: [*e, entry("new")],
    "tensor 'a' is trainable float32[3, 2], the job's is trainable float32[2, 3]": lambda e: [
        entry("a", (3, 2)), *e[1:]
    ],
    "tensor 'a' is trainable bfloat16[2, 3], the job's is trainable float32[2, 3]": lambda e: [
        entry("a", (2, 3), dtype="bfloat16"), *e[1:]
    ],
    "tensor 'a' is frozen float32[2, 3], the job's is trainable float32[2, 3]": lambda e: [
        entry("a", (2, 3), "frozen"), *e[1:]
    ],
    "the tensors stand in another order": lambda e: [*e[1:], e[0]],
}  # fmt: skip


@pytest.mark.parametrize(("said", "change"), CHANGES.items(), ids=CHANGES)
def test_another_model_has_another_hash_and_the_first_difference_is_said(said, change):
    other = Schema(tuple(change(list(MODEL.entries))))
    assert other.hash != MODEL.hash
    assert MODEL.difference(other) == said


def test_tied_weights_are_part_of_the_model():
    tied = Schema((entry("a", (2, 3), aliases=("head.weight",)), *MODEL.entries[1:]))
    assert tied.hash != MODEL.hash
    assert MODEL.difference(tied).startswith("tensor 'a'")


def test_the_same_model_has_the_same_hash():
    assert Schema(tuple(MODEL.entries)).hash == MODEL.hash
    assert len(MODEL.hash) == 32
