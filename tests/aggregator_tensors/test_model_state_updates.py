"""One update after the other: what training with N workers must equal, and what it must leave alone."""

import copy
import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from backupsync.errors import BackupSyncError
from backupsync.spec import ManifestError
from backupsync.wire.schema import Schema
from backupsync_aggregator.tensors.model_state import ModelState, WeightedGradient

pytestmark = pytest.mark.filterwarnings("error")


def mlp(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def batch(seed: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 6, generator=generator), torch.randint(0, 3, (size,), generator=generator)


def backward(module: nn.Module, data: tuple[torch.Tensor, torch.Tensor]) -> None:
    nn.functional.cross_entropy(module(data[0]), data[1]).backward()


@pytest.mark.parametrize(
    ("optimizer", "sizes"),
    [
        ({"name": "SGD", "lr": 0.2, "momentum": 0.9, "weight_decay": 1e-3}, [8, 8, 8, 8]),
        ({"name": "AdamW", "lr": 0.01}, [8, 8, 8, 8]),
        ({"name": "SGD", "lr": 0.2, "nesterov": True, "momentum": 0.8}, [3, 8, 1, 5]),
    ],
    ids=["SGD-momentum", "AdamW", "unequal-batches"],
)
def test_n_workers_train_as_one_process_does_on_the_joined_batch(toys, optimizer, sizes):
    worker, alone = toys.seen(mlp()), mlp()
    state = worker.state(toys.spec(workers=4, optimizer=optimizer))
    keywords = {key: value for key, value in optimizer.items() if key != "name"}
    reference = getattr(torch.optim, optimizer["name"])(alone.parameters(), **keywords)
    for step in range(20):
        parts = [batch(100 * step + rank, size) for rank, size in enumerate(sizes)]
        gradients = []
        for part in parts:
            worker.load(state.published())
            backward(worker.module, part)
            gradients.append(worker.gradient(len(part[0])))
        state.apply(gradients, step * sum(sizes))
        reference.zero_grad()
        backward(alone, (torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])))
        reference.step()
    worker.load(state.published())
    for name, parameter in alone.named_parameters():
        torch.testing.assert_close(worker.tensors[name], parameter, rtol=1e-4, atol=1e-5)


def test_the_same_gradients_give_the_same_bits(toys):
    seen = toys.seen(mlp())
    spec = toys.spec(optimizer={"name": "AdamW", "lr": 0.01}, emaDecay=0.9)
    twins = [seen.state(spec), seen.state(spec)]
    assert twins[0].digest() == twins[1].digest()
    for step in range(10):
        for twin in twins:
            twin.apply(toys.gradients(seen.schema, 3, step), 12 * step)
        assert twins[0].digest() == twins[1].digest()
        assert twins[0].evaluation_section() == twins[1].evaluation_section()


def test_each_update_publishes_new_memory_and_leaves_the_old_alone(toys):
    seen = toys.seen(mlp())
    state = seen.state(toys.spec())
    before = state.published()
    kept = bytes(before)
    state.apply(toys.gradients(seen.schema, 2, 1), 0)
    assert bytes(before) == kept
    assert bytes(state.published()) != kept
    assert state.published().readonly
    assert state.published() is state.published()


def test_memory_is_used_again_only_after_the_last_holder_let_go(toys):
    seen = toys.seen(mlp())
    state = seen.state(toys.spec())

    def step() -> int:
        state.apply(toys.gradients(seen.schema, 1, 1), 0)
        return np.frombuffer(state.published(), np.uint8).ctypes.data

    first = step()
    assert step() != first, "the section before is let go of only after the next is made"
    assert step() == first
    chunk = state.published()[64:128]
    held, kept = step(), bytes(chunk)
    assert first not in {step(), step(), step(), held}
    assert bytes(chunk) == kept
    chunk.release()
    assert first in {step(), step(), step()}


def test_the_digest_is_that_of_what_is_published(toys):
    state = toys.seen(mlp()).state(toys.spec())
    assert state.digest() == hashlib.sha256(bytes(state.published())).hexdigest()


def test_initial_values_are_published_as_they_came_but_with_zeros_between_the_tensors(toys):
    schema = Schema(
        (toys.entry("a", 3), toys.entry("b", 2, dtype="float64"), toys.entry("c", 1, role="buffer"))
    )
    clean = toys.moving(
        schema,
        a=torch.tensor([1.0, 2, 3]),
        b=torch.tensor([4.0, 5], dtype=torch.float64),
        c=torch.tensor([6.0]),
    )
    dirty = bytearray(clean)
    for used, slot in ((12, 0), (16, 1), (4, 2)):
        dirty[64 * slot + used : 64 * (slot + 1)] = b"\xff" * (64 - used)
    state = ModelState.initial(schema, toys.spec(), dirty, b"")
    assert state.published() == clean
    assert len(state.frozen_section()) == 0


def test_frozen_tensors_never_move(toys):
    module = mlp()
    module[0].weight.requires_grad_(False)
    seen = toys.seen(module)
    state = seen.state(toys.spec(optimizer={"weight_decay": 0.1}))
    before = bytes(state.frozen_section())
    assert before == seen.section(seen.schema.frozen)
    for step in range(3):
        state.apply(toys.gradients(seen.schema, 2, step), 8 * step)
    assert bytes(state.frozen_section()) == before
    assert "0.weight" not in toys.values(seen.schema, state.published())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_updates_too_small_for_a_half_model_add_up_in_float32_masters(toys, dtype):
    schema = Schema((toys.entry("w", 4, dtype=str(dtype).removeprefix("torch.")),))
    state = toys.state(schema, toys.spec(optimizer={"lr": 1e-5}), w=torch.ones(4, dtype=dtype))
    for step in range(1000):
        state.apply([WeightedGradient(torch.ones(4), 4, 1.0)], 4 * step)
    published = toys.values(schema, state.published())["w"]
    assert published.dtype is dtype
    torch.testing.assert_close(published.float(), torch.full((4,), 0.99), rtol=0.005, atol=0)
    assert bool((published < 1).all())


def test_a_float64_model_keeps_its_precision(toys):
    schema = Schema((toys.entry("w", 4, dtype="float64"),))
    state = toys.state(schema, toys.spec(optimizer={"lr": 1e-9}), w=torch.ones(4, dtype=torch.float64))
    state.apply([WeightedGradient(torch.ones(4), 4, 1.0)], 0)
    published = toys.values(schema, state.published())["w"]
    torch.testing.assert_close(published, torch.full((4,), 1 - 1e-9, dtype=torch.float64), rtol=0, atol=1e-15)


def test_a_model_of_many_dtypes_trains_each_tensor_in_its_own(toys):
    dtypes = ["float32", "bfloat16", "float32", "float64", "float16"]
    schema = Schema(tuple(toys.entry(f"w{i}", 3, 5, dtype=dtype) for i, dtype in enumerate(dtypes)))
    start = {f"w{i}": torch.ones(3, 5, dtype=getattr(torch, dtype)) for i, dtype in enumerate(dtypes)}
    state = toys.state(schema, toys.spec(optimizer={"lr": 0.5, "momentum": 0.9}), **start)
    state.apply([WeightedGradient(torch.ones(75), 4, 1.0)], 0)
    for name, value in toys.values(schema, state.published()).items():
        assert value.dtype is start[name].dtype
        assert value.tolist() == [[0.5] * 5] * 3


def test_bfloat16_and_float32_gradients_are_both_taken(toys):
    schema = Schema((toys.entry("w", 4),))
    for dtype in (torch.float32, torch.bfloat16):
        state = toys.state(schema, toys.spec(optimizer={"lr": 1.0}))
        state.apply([WeightedGradient(torch.full((4,), 0.5, dtype=dtype), 4, 1.0)], 0)
        assert toys.values(schema, state.published())["w"].tolist() == [-0.5] * 4


def test_a_parameter_without_any_gradient_is_left_alone_weight_decay_and_momentum_included(toys):
    schema = Schema((toys.entry("used", 2), toys.entry("unused", 2)))
    spec = toys.spec(optimizer={"momentum": 0.9, "weight_decay": 0.5})
    state = toys.state(schema, spec, used=torch.ones(2), unused=torch.ones(2))
    for step in range(3):
        state.apply([WeightedGradient(torch.zeros(4), 4, 1.0, (1,))] * 2, 8 * step)
    published = toys.values(schema, state.published())
    assert published["unused"].tolist() == [1.0, 1.0]
    assert (published["used"] < 1).all()
    named, _ = state.optimizer_state()
    assert {name.split(".")[0] for name in named} == {"0"}


def test_a_parameter_with_a_gradient_from_one_worker_alone_takes_part(toys):
    schema = Schema((toys.entry("a", 2), toys.entry("b", 2)))
    state = toys.state(schema, toys.spec(optimizer={"lr": 1.0}))
    absent = WeightedGradient(torch.tensor([0.0, 0, 4, 4]), 4, 1.0, (1,))
    state.apply([absent, WeightedGradient(torch.full((4,), 2.0), 4, 1.0)], 0)
    published = toys.values(schema, state.published())
    assert published["a"].tolist() == [-3.0, -3.0]
    assert published["b"].tolist() == [-1.0, -1.0]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.embedding(tokens)))


def test_tied_weights_are_one_tensor_with_one_optimizer_state(toys):
    torch.manual_seed(0)
    module = Tied()
    seen, alone = toys.seen(module), copy.deepcopy(module)
    assert [e.aliases for e in seen.schema.trainable] == [("head.weight",), (), ()]
    state = seen.state(toys.spec(optimizer={"momentum": 0.9}))
    reference = torch.optim.SGD(alone.parameters(), lr=0.1, momentum=0.9)
    for step in range(5):
        tokens = torch.randint(0, 5, (4,), generator=torch.Generator().manual_seed(step))
        for model in (seen.module, alone):
            nn.functional.cross_entropy(model(tokens), tokens.roll(1)).backward()
        reference.step()
        reference.zero_grad()
        state.apply([seen.gradient(4)], 4 * step)
        seen.load(state.published())
    torch.testing.assert_close(module.head.weight, alone.head.weight, rtol=1e-5, atol=1e-6)


def test_batch_norm_statistics_are_the_mean_over_the_accepted(toys):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    seen = toys.seen(module)
    state = seen.state(toys.spec())
    gradients, means = [], []
    for _ in range(2):
        seen.load(state.published())
        module(torch.randn(8, 4)).sum().backward()
        means.append(module[1].running_mean.clone())
        gradients.append(seen.gradient(8))
    state.apply(gradients, 0)
    published = toys.values(seen.schema, state.published())
    torch.testing.assert_close(published["1.running_mean"], (means[0] + means[1]) / 2)
    assert published["1.num_batches_tracked"].item() == 1
    assert torch.equal(
        toys.values(seen.schema, state.evaluation_section())["1.running_mean"], published["1.running_mean"]
    )


def test_the_average_follows_min_of_d_and_1_plus_t_over_10_plus_t(toys):
    schema = Schema((toys.entry("w", 1),))
    state = toys.state(schema, toys.spec(optimizer={"lr": 1.0}, emaDecay=0.25), w=torch.zeros(1))
    parameter = average = 0.0
    for step, decay in enumerate([1 / 10, 2 / 11, 0.25, 0.25]):
        state.apply([WeightedGradient(torch.tensor([-1.0]), 4, 1.0)], 4 * step)
        parameter += 1.0
        average = decay * average + (1 - decay) * parameter
        evaluated = toys.values(schema, state.evaluation_section())["w"].item()
        assert evaluated == pytest.approx(average, rel=1e-6)
    assert state.averaged
    assert toys.values(schema, state.published())["w"].item() == 4.0


def test_without_an_average_the_current_parameters_are_evaluated(toys):
    state = toys.seen(mlp()).state(toys.spec())
    assert not state.averaged
    assert state.evaluation_section() == state.published()


def test_an_update_says_its_rate_its_norm_and_its_examples(toys):
    schema = Schema((toys.entry("w", 2),))
    state = toys.state(schema, toys.spec(optimizer={"lr": 0.25}))
    applied = state.apply([WeightedGradient(torch.tensor([3.0, 4.0]), 6, 1.0)] * 2, 0)
    assert (applied.learning_rate, applied.gradient_norm, applied.examples) == (0.25, 5.0, 12)
    assert state.updates == 1


@pytest.mark.parametrize(
    "wrong",
    [
        [WeightedGradient(torch.zeros(3), 1, 1.0, (), bytes(64))],
        [WeightedGradient(torch.zeros(4), 0, 1.0, (), bytes(64))],
        [WeightedGradient(torch.ones(4), 1, 1.0, (), bytes(63))],
    ],
    ids=["size", "examples", "buffers"],
)
def test_a_refused_update_changes_nothing(toys, wrong):
    schema = Schema((toys.entry("w", 4), toys.entry("mean", 1, role="buffer")))
    state = toys.state(schema, toys.spec())
    before = state.digest()
    with pytest.raises(ValueError, match=r"gradient|buffers|example"):
        state.apply(wrong, 0)
    assert (state.digest(), state.updates) == (before, 0)


def test_buffers_are_sound_when_finite_or_unchanged(toys):
    schema = Schema((toys.entry("w", 1), toys.entry("mask", 2, role="buffer")))
    minus = float("-inf")
    state = toys.state(schema, toys.spec(), mask=torch.tensor([0.0, minus]))
    for value, sound in (
        ([0.0, minus], True),
        ([7.0, 1.0], True),
        ([minus, minus], False),
        ([0, float("nan")], False),
    ):
        assert state.sound_buffers(toys.buffers(schema, mask=torch.tensor(value))) is sound


def test_initial_sections_of_another_size_are_refused(toys):
    schema = Schema((toys.entry("w", 4), toys.entry("f", 4, role="frozen")))
    with pytest.raises(BackupSyncError, match="section moving has 12 bytes, must have 64"):
        ModelState.initial(schema, toys.spec(), bytes(12), bytes(64))
    with pytest.raises(BackupSyncError, match="section frozen has 0 bytes, must have 64"):
        ModelState.initial(schema, toys.spec(), bytes(64), b"")


def test_a_model_without_trainable_parameters_is_refused(toys):
    schema = Schema((toys.entry("f", 4, role="frozen"),))
    with pytest.raises(ManifestError, match="without trainable parameters"):
        ModelState.initial(schema, toys.spec(), b"", bytes(64))


def test_an_integer_parameter_is_refused_by_name(toys):
    schema = Schema((toys.entry("counts", 4, dtype="int64"),))
    with pytest.raises(ManifestError, match="parameter counts: is trainable with dtype int64"):
        ModelState.initial(schema, toys.spec(), bytes(64), b"")
