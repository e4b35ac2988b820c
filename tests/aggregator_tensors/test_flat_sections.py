"""Flat sections and the masters below them, for any mixture of tensors."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backupsync.wire.messages import TensorEntry
from backupsync.wire.schema import Schema
from backupsync_aggregator.tensors.sections import MasterStore, copy_in, spans

TRAINABLE = st.tuples(
    st.sampled_from(["float32", "float64", "bfloat16", "float16"]),
    st.lists(st.integers(0, 5), max_size=3).map(tuple),
)


def schema_of(tensors) -> Schema:
    return Schema(
        tuple(TensorEntry(f"t{i}", dtype, shape, "trainable") for i, (dtype, shape) in enumerate(tensors))
    )


@settings(max_examples=100, deadline=None)
@given(st.lists(TRAINABLE, min_size=1, max_size=8), st.integers(0, 2**20))
def test_values_survive_the_way_through_the_masters_and_padding_becomes_zero(tensors, seed):
    schema = schema_of(tensors)
    total = schema.section_bytes(schema.moving)
    store = MasterStore(schema.moving, total)
    generator = torch.Generator().manual_seed(seed)
    dirty = torch.randint(0, 256, (total,), generator=generator, dtype=torch.uint8)
    clean = torch.zeros(total, dtype=torch.uint8)
    for slot in schema.moving:
        value = torch.randn(slot.entry.shape, generator=generator).to(getattr(torch, slot.entry.dtype))
        for section in (dirty, clean):
            section[slot.offset : slot.offset + slot.size] = value.reshape(-1).view(torch.uint8)
    store.load(dirty)
    out = torch.full((total,), 255, dtype=torch.uint8)
    store.store(out)
    assert torch.equal(out, clean)
    assert [tuple(view.shape) for view in store.views] == [shape for _, shape in tensors]


@given(st.lists(TRAINABLE, max_size=8))
def test_spans_cover_a_section_without_gap_and_hold_one_dtype_each(tensors):
    schema = schema_of(tensors)
    total = schema.section_bytes(schema.moving)
    found = spans(schema.moving, total)
    assert [slot for span in found for slot in span.slots] == list(schema.moving)
    assert all({slot.entry.dtype for slot in span.slots} == {span.dtype} for span in found)
    edges = [0, *(span.stop for span in found)]
    assert [span.start for span in found] == edges[:-1]
    assert edges[-1] == total


def test_a_model_of_one_dtype_is_one_flat_array():
    schema = schema_of([("float32", (3, 4)), ("float32", ()), ("float32", (7,))])
    store = MasterStore(schema.moving, schema.section_bytes(schema.moving))
    (flat,) = store.flats.values()
    assert {view.untyped_storage().data_ptr() for view in store.views} == {flat.untyped_storage().data_ptr()}


def test_bytes_are_copied_in_from_any_buffer():
    for data in (b"abc", bytearray(b"abc"), memoryview(b"abc"), memoryview(b"_abc_")[1:4]):
        assert copy_in(data).tolist() == [97, 98, 99]
    assert copy_in(b"").numel() == 0
