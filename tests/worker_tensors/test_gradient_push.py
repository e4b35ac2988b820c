"""GradientPush: a gradient leaves in chunks while backward runs, and equals torch's own."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from backupsync.errors import ProgramError
from backupsync_worker.tensors.flat_model import FlatModel

CHUNK = 4096


def reference(model: nn.Module, loss_of, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The flat gradient by torch's own backward: trainable tensors in reverse, zeros where there is none."""
    model = copy.deepcopy(model)
    loss_of(model).backward()
    parameters = [p for p in model.parameters() if p.requires_grad]
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    return torch.cat([g.reshape(-1).to(dtype) for g in reversed(grads)])


def quadratic(inputs: torch.Tensor):
    return lambda model: model(inputs).square().mean()


# ---- equality --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_bytes", [64, 100, CHUNK, 1 << 20])
def test_the_float32_gradient_equals_torchs_own_to_the_bit(deep, receiver, chunk_bytes):
    loss_of, got = quadratic(torch.randn(8, 16)), receiver()
    expected = reference(deep, loss_of)
    push = FlatModel(deep, "float32", chunk_bytes).gradient
    push.begin(got)
    loss_of(deep).backward()
    push.finish()
    assert torch.equal(got.tensor, expected)


def test_the_bfloat16_gradient_is_torchs_own_rounded(deep, receiver):
    loss_of, got = quadratic(torch.randn(8, 16)), receiver(torch.bfloat16)
    expected = reference(deep, loss_of, torch.bfloat16)
    push = FlatModel(deep, "bfloat16", CHUNK).gradient
    push.begin(got)
    loss_of(deep).backward()
    push.finish()
    assert torch.equal(got.tensor, expected)
    assert len(got.bytes) == push.total_bytes == 2 * expected.numel()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_models_of_other_element_types_are_cast_to_the_wires(deep, receiver, dtype):
    deep, got = deep.to(dtype), receiver()
    loss_of = quadratic(torch.randn(8, 16, dtype=dtype))
    expected = reference(deep, loss_of)
    push = FlatModel(deep, "float32", CHUNK).gradient
    push.begin(got)
    loss_of(deep).backward()
    push.finish()
    assert torch.equal(got.tensor, expected)


def test_gradients_in_other_memory_formats_travel_in_the_order_of_their_indices(receiver):
    model, got = nn.Conv2d(3, 4, 3, bias=False).to(memory_format=torch.channels_last), receiver()
    loss_of = quadratic(torch.randn(2, 3, 5, 5).to(memory_format=torch.channels_last))
    expected = reference(model, loss_of)
    push = FlatModel(model, "float32", CHUNK).gradient
    push.begin(got)
    loss_of(model).backward()
    push.finish()
    assert torch.equal(got.tensor, expected)


def test_a_parameter_used_several_times_is_handed_out_once_and_whole(receiver):
    shared = nn.Linear(32, 32)
    model, got = nn.Sequential(shared, nn.Tanh(), shared, nn.Tanh(), shared), receiver()
    loss_of = quadratic(torch.randn(4, 32))
    expected = reference(model, loss_of)
    push = FlatModel(model, "float32", 64).gradient
    push.begin(got)
    loss_of(model).backward()
    push.finish()
    assert torch.equal(got.tensor, expected)


def test_tied_weights_have_one_gradient(receiver):
    model, got = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)), receiver()
    model[1].weight = model[0].weight
    loss_of = quadratic(torch.randint(9, (6,)))
    expected = reference(model, loss_of)
    push = FlatModel(model, "float32", CHUNK).gradient
    push.begin(got)
    loss_of(model).backward()
    summary = push.finish()
    assert torch.equal(got.tensor, expected)
    assert len(got.tensor) == 36
    assert summary.absent == ()


def test_frozen_parameters_have_no_place_in_the_gradient(deep, received):
    deep[0].requires_grad_(False)
    push = FlatModel(deep, "float32", CHUNK).gradient
    push.begin(received)
    quadratic(torch.randn(8, 16))(deep).backward()
    summary = push.finish()
    assert len(received.tensor) == sum(p.numel() for p in deep.parameters() if p.requires_grad)
    assert summary.absent == ()


# ---- when chunks leave -----------------------------------------------------------------------------------


def test_chunks_leave_before_backward_is_over(deep, receiver):
    events = []
    deep[0].weight.register_hook(lambda grad: events.append("first layer"))
    push = FlatModel(deep, "float32", CHUNK).gradient
    push.begin(lambda offset, view: events.append(offset))
    quadratic(torch.randn(8, 16))(deep).backward()
    events.append("backward over")
    push.finish()
    assert events.index(0) < events.index("first layer"), (
        "the last layers left before the first had a gradient"
    )
    assert events[-1] == "backward over", "finish had nothing left to hand out"


def test_a_chunk_leaves_only_when_every_parameter_in_it_is_final(deep):
    seen = {}
    parameters = list(deep.parameters())[::-1]
    push = FlatModel(deep, "float32", 1000).gradient
    push.begin(lambda offset, view: seen.update({offset: bytes(view)}))
    quadratic(torch.randn(8, 16))(deep).backward()
    final = torch.cat([p.grad.reshape(-1) for p in parameters]).numpy().tobytes()
    push.finish()
    assert all(final[offset : offset + len(data)] == data for offset, data in seen.items())
    assert sum(map(len, seen.values())) == len(final)


def test_nothing_leaves_while_the_hooks_are_not_armed(deep, received):
    inputs = torch.randn(8, 16)
    push = FlatModel(deep, "float32", CHUNK).gradient
    quadratic(inputs)(deep).backward()
    assert received.chunks == []
    push.begin(received)
    quadratic(inputs)(deep).backward()
    push.finish()
    assert torch.equal(received.tensor, 2 * reference(deep, quadratic(inputs)))


def test_views_keep_their_bytes_while_the_next_gradients_are_computed(deep, receiver):
    push = FlatModel(deep, "float32", CHUNK).gradient
    kept, copies = [], []
    for _ in range(4):
        got = receiver()
        push.begin(got)
        quadratic(torch.randn(8, 16))(deep).backward()
        push.finish()
        kept.append(got)
        copies.append(got.bytes)
    assert [got.bytes for got in kept] == copies
    assert len(set(copies)) == 4


def test_memory_that_nobody_looks_at_any_more_is_used_again(deep, receiver):
    push = FlatModel(deep, "float32", CHUNK).gradient
    addresses = set()
    for _ in range(5):
        got = receiver()
        push.begin(got)
        quadratic(torch.randn(8, 16))(deep).backward()
        push.finish()
        addresses.add(min(torch.frombuffer(view, dtype=torch.uint8).data_ptr() for _, view in got.chunks))
        del got
    assert len(addresses) <= 2


# ---- the summary -----------------------------------------------------------------------------------------


def test_the_norm_is_that_of_the_whole_gradient_before_the_cast_to_the_wire(deep, receiver):
    loss_of = quadratic(torch.randn(8, 16))
    norms = []
    for wire in ("float32", "bfloat16"):
        push = FlatModel(deep, wire, CHUNK).gradient
        push.begin(receiver())
        loss_of(deep).backward()
        norms.append(push.finish().norm)
        push.close()
    assert norms[0] == norms[1]
    assert norms[0] == pytest.approx(reference(deep, loss_of).double().norm().item(), rel=1e-6)


def test_a_parameter_without_gradient_is_absent_and_travels_as_zeros(receiver):
    model, got = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)]), receiver()
    push = FlatModel(model, "float32", 64).gradient
    push.begin(got)
    model[2](model[0](torch.randn(3, 4))).sum().backward()
    summary = push.finish()
    assert summary.absent == (2, 3), "indices among the trainable tensors, in model order"
    assert not got.tensor[5:25].any()
    assert got.tensor[25:].any()


def test_absence_does_not_leak_old_numbers_from_reused_memory(deep, receiver):
    push = FlatModel(deep, "float32", CHUNK).gradient
    push.begin(receiver())
    quadratic(torch.randn(8, 16))(deep).backward()
    push.finish()
    got = receiver()
    push.begin(got)
    summary = push.finish()
    assert len(summary.absent) == 8
    assert (summary.norm, summary.finite) == (0.0, True)
    assert not got.tensor.any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_number_that_is_not_finite_shows_in_the_summary(deep, received, bad):
    deep[0].bias.register_hook(lambda grad: grad.index_fill(0, torch.tensor([3]), bad))
    push = FlatModel(deep, "float32", CHUNK).gradient
    push.begin(received)
    quadratic(torch.randn(8, 16))(deep).backward()
    assert not push.finish().finite


def test_gradients_are_none_after_the_push_and_after_it_is_given_up(deep, received):
    push = FlatModel(deep, "float32", CHUNK).gradient
    for end in (push.finish, push.abort):
        push.begin(received)
        quadratic(torch.randn(8, 16))(deep).backward()
        end()
        assert all(p.grad is None for p in deep.parameters())


# ---- refusals --------------------------------------------------------------------------------------------


def test_a_sparse_gradient_is_refused_in_clear_words(received):
    model = nn.Linear(3, 3)
    model.table = nn.Parameter(torch.randn(5, 2))
    push = FlatModel(model, "float32", CHUNK).gradient
    push.begin(received)
    rows = nn.functional.embedding(torch.tensor([1, 2]), model.table, sparse=True)
    with pytest.raises(ProgramError, match=r"parameter 'table': its gradient is sparse.*sparse=False"):
        rows.sum().backward()
    push.abort()
    assert model.table.grad is None


def through_twice(block: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    hidden = checkpoint(block, inputs, use_reentrant=True)
    return checkpoint(block, hidden, use_reentrant=True).square().mean()


def test_a_gradient_that_grows_after_it_left_is_refused_rather_than_sent_wrong(received):
    block = nn.Linear(16, 16)
    push = FlatModel(block, "float32", 64).gradient
    push.begin(received)
    loss = through_twice(block, torch.randn(4, 16, requires_grad=True))
    with pytest.raises(ProgramError, match=r"grew after it was final.*use_reentrant=False"):
        loss.backward()
    push.abort()


def test_a_gradient_that_grows_before_it_left_is_sent_whole(receiver):
    block, got = nn.ModuleList([nn.Linear(16, 16), nn.Linear(1, 1)]), receiver()
    inputs = torch.randn(4, 16, requires_grad=True)
    expected = reference(block[0], lambda m: through_twice(m, inputs))
    push = FlatModel(block, "float32", 1 << 20).gradient
    push.begin(got)
    through_twice(block[0], inputs).backward()
    summary = push.finish()
    assert torch.equal(got.tensor[2:], expected)
    assert summary.norm == pytest.approx(expected.norm().item())


def test_what_the_receiver_raises_reaches_the_caller_of_backward(deep):
    class FullError(Exception):
        pass

    def refuse(offset, view):
        raise FullError

    push = FlatModel(deep, "float32", CHUNK).gradient
    push.begin(refuse)
    loss = quadratic(torch.randn(8, 16))(deep)
    with pytest.raises(FullError):
        loss.backward()
    push.abort()


# ---- copies that take their time, as from a GPU ----------------------------------------------------------


class SlowCopier:
    """Copies when asked to synchronize, like a stream that is behind."""

    pinned = False

    def __init__(self) -> None:
        self.events = []
        self.advance = 0

    def copy(self, target, source):
        event = SlowCopy(self, target, source.clone(), len(self.events))
        self.events.append(event)
        return event


class SlowCopy:
    def __init__(self, copier, target, source, number) -> None:
        self.copier, self.target, self.source, self.number = copier, target, source, number
        target.fill_(float("nan"))

    def query(self):
        if self.number < self.copier.advance:
            self.synchronize()
            return True
        return False

    def synchronize(self):
        self.target.copy_(self.source)


@pytest.fixture
def slow(monkeypatch) -> SlowCopier:
    copier = SlowCopier()
    monkeypatch.setattr("backupsync_worker.tensors.gradient.copier_for", lambda device: copier)
    return copier


def test_a_chunk_waits_for_the_copies_from_the_device(deep, receiver, slow):
    loss_of, got = quadratic(torch.randn(8, 16)), receiver()
    expected = reference(deep, loss_of)
    push = FlatModel(deep, "float32", CHUNK).gradient
    push.begin(got)
    loss_of(deep).backward()
    assert got.chunks == [], "no copy has ended yet, and backward does not wait for one"
    push.finish()
    assert torch.equal(got.tensor, expected)


def test_chunks_whose_copies_ended_leave_while_backward_runs(deep, receiver, slow):
    loss_of, got = quadratic(torch.randn(8, 16)), receiver()
    expected = reference(deep, loss_of)
    slow.advance = 4
    push = FlatModel(deep, "float32", CHUNK).gradient
    push.begin(got)
    loss_of(deep).backward()
    assert 0 < len(got.chunks) < push.total_bytes // CHUNK
    push.finish()
    assert torch.equal(got.tensor, expected)
