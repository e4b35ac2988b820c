"""The mean of gradients and of buffers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backupsync.wire.messages import TensorEntry
from backupsync.wire.schema import Schema
from backupsync_aggregator.tensors.averaging import BLOCK_ELEMENTS, BufferMean, GradientMean, WeightedGradient

PAIR = Schema(
    (
        TensorEntry("first", "float32", (2, 3), "trainable"),
        TensorEntry("second", "float32", (5,), "trainable"),
    )
)


def flat_of(mean: list[torch.Tensor | None]) -> torch.Tensor:
    """The tensors in wire order, which is the reverse of the model's."""
    return torch.cat([view.reshape(-1) for view in reversed(mean) if view is not None])


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(1, 64), min_size=1, max_size=9),
    scales=st.lists(st.floats(1e-3, 1.0), min_size=9, max_size=9),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 2**20),
)
def test_the_mean_is_weighted_by_examples_and_scaled_to_float32_precision(counts, scales, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    gradients = [
        WeightedGradient(torch.randn(11, generator=generator).to(dtype), count, scale)
        for count, scale in zip(counts, scales, strict=False)
    ]
    exact = sum(g.flat.double() * g.scale * g.examples for g in gradients) / sum(counts)
    magnitude = sum(g.flat.double().abs() * g.scale * g.examples for g in gradients) / sum(counts)
    error = (flat_of(GradientMean(PAIR).take(gradients)).double() - exact).abs()
    assert bool((error <= 2 * len(counts) * 2**-24 * magnitude + 1e-30).all())


def test_tensors_come_back_in_model_order_and_shape_though_they_travel_in_reverse():
    flat = torch.arange(11.0)
    first, second = GradientMean(PAIR).take([WeightedGradient(flat, 1, 1.0)])
    assert second.tolist() == [0, 1, 2, 3, 4]
    assert first.tolist() == [[5, 6, 7], [8, 9, 10]]


def test_a_model_larger_than_a_block_is_averaged_over_all_its_blocks():
    size = 2 * BLOCK_ELEMENTS + 17
    schema = Schema((TensorEntry("w", "float32", (size,), "trainable"),))
    generator = torch.Generator().manual_seed(3)
    gradients = [WeightedGradient(torch.randn(size, generator=generator), 2, 1.0) for _ in range(4)]
    (mean,) = GradientMean(schema).take(gradients)
    exact = torch.stack([g.flat.double() for g in gradients]).mean(0)
    torch.testing.assert_close(mean.double(), exact, rtol=0, atol=1e-6)


def test_every_update_is_summed_into_the_same_memory():
    mean = GradientMean(PAIR)
    gradient = WeightedGradient(torch.ones(11), 1, 1.0)
    first = [view.data_ptr() for view in mean.take([gradient])]
    second = [view.data_ptr() for view in mean.take([gradient] * 5)]
    assert first == second
    assert mean.flat.tolist() == [1.0] * 11


def test_bfloat16_gradients_are_summed_in_float32():
    tiny = WeightedGradient(torch.full((11,), 2.0**-10, dtype=torch.bfloat16), 1, 1.0)
    one = WeightedGradient(torch.ones(11, dtype=torch.bfloat16), 1, 1.0)
    mean = flat_of(GradientMean(PAIR).take([one, tiny]))
    assert mean.dtype is torch.float32
    assert mean.tolist() == [(1 + 2.0**-10) / 2] * 11


def test_the_sum_runs_in_order_of_place_so_places_decide_the_bits():
    big, small = torch.full((11,), 2.0**24), torch.ones(11)
    ordered = [WeightedGradient(flat, 1, 1.0) for flat in (big, small, -big, small)]
    swapped = [ordered[0], ordered[2], ordered[1], ordered[3]]
    mean = GradientMean(PAIR)
    assert flat_of(mean.take(ordered)).tolist() == [0.25] * 11
    assert flat_of(mean.take(swapped)).tolist() == [0.5] * 11


def test_a_gradient_absent_in_some_counts_as_zero_whatever_its_elements_hold():
    garbage = torch.full((11,), float("nan"))
    garbage[:5] = 4.0
    mean = GradientMean(PAIR).take(
        [WeightedGradient(garbage, 1, 1.0, (0,)), WeightedGradient(torch.ones(11), 1, 1.0)]
    )
    assert mean[0].tolist() == [[0.5] * 3] * 2
    assert mean[1].tolist() == [2.5] * 5


def test_a_gradient_absent_in_all_is_none():
    mean = GradientMean(PAIR).take([WeightedGradient(torch.ones(11), 1, 1.0, (1,))] * 3)
    assert mean[0].tolist() == [[1.0] * 3] * 2
    assert mean[1] is None


@pytest.mark.parametrize(
    ("gradients", "complaint"),
    [
        ([], "needs gradients"),
        ([WeightedGradient(torch.ones(11), 0, 1.0)], "at least 1 example"),
        ([WeightedGradient(torch.ones(12), 1, 1.0)], r"shape \[12\], the model's is \[11\]"),
    ],
)
def test_gradients_that_are_not_of_this_model_are_refused(gradients, complaint):
    with pytest.raises(ValueError, match=complaint):
        GradientMean(PAIR).take(gradients)


def test_floating_buffers_are_averaged_by_examples_and_integer_ones_come_from_place_0(toys):
    schema = Schema(
        (
            toys.entry("w", 1),
            toys.entry("mean", 3, role="buffer"),
            toys.entry("half", 3, role="buffer", dtype="float16"),
            toys.entry("wide", 3, role="buffer", dtype="float64"),
            toys.entry("steps", role="buffer", dtype="int64"),
            toys.entry("seen", 2, role="buffer", dtype="bool"),
        )
    )

    def sent(value: float, steps: int, seen: list[bool], examples: int) -> WeightedGradient:
        data = toys.buffers(
            schema,
            mean=torch.full((3,), value),
            half=torch.full((3,), value, dtype=torch.float16),
            wide=torch.full((3,), value, dtype=torch.float64),
            steps=torch.tensor(steps),
            seen=torch.tensor(seen),
        )
        return WeightedGradient(torch.zeros(1), examples, 1.0, (), data)

    section = torch.zeros(schema.section_bytes(schema.buffer_section), dtype=torch.uint8)
    BufferMean(schema).take([sent(1.0, 7, [True, False], 3), sent(5.0, 9, [False, True], 1)], section)
    got = toys.values(schema, bytes(64) + section.numpy().tobytes())
    assert got["mean"].tolist() == got["half"].tolist() == got["wide"].tolist() == [2.0] * 3
    assert got["steps"].item() == 7
    assert got["seen"].tolist() == [True, False]


@pytest.mark.parametrize("constant", [0.1, 1 / 3, float("inf"), float("-inf")])
@pytest.mark.parametrize("workers", [1, 3, 7])
def test_a_constant_buffer_stays_itself_to_the_last_bit(toys, constant, workers):
    schema = Schema((toys.entry("w", 1), toys.entry("mask", 4, role="buffer")))
    data = toys.buffers(schema, mask=torch.full((4,), constant))
    section = torch.zeros(schema.section_bytes(schema.buffer_section), dtype=torch.uint8)
    mean = BufferMean(schema)
    for _ in range(10):
        mean.take([WeightedGradient(torch.zeros(1), 3, 1.0, (), data)] * workers, section)
        data = section.numpy().tobytes()
    assert data == toys.buffers(schema, mask=torch.full((4,), constant))


def test_buffers_of_another_size_are_refused_before_anything_is_written(toys):
    schema = Schema((toys.entry("w", 1), toys.entry("mean", 3, role="buffer")))
    section = torch.zeros(64, dtype=torch.uint8)
    good = toys.buffers(schema, mean=torch.ones(3))
    sent = [WeightedGradient(torch.zeros(1), 1, 1.0, (), data) for data in (good, good[:32])]
    with pytest.raises(ValueError, match="buffers of 32 bytes, the model's take 64"):
        BufferMean(schema).take(sent, section)
    assert not section.any()
