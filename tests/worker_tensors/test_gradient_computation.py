"""compute_gradient: the one computation of session and replay, a pure function of parameters and ticket."""

import copy
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from backupsync.errors import ProgramError
from backupsync_worker.data.batches import Batches, MicroBatch
from backupsync_worker.tensors.compute import Abandon, Computed, clip_scale, compute_gradient
from backupsync_worker.tensors.flat_model import FlatModel

ELSEWHERE = """
import hashlib, sys, torch
from torch import nn
from torch.utils.data import TensorDataset
from backupsync_worker.data.batches import Batches
from backupsync_worker.tensors.compute import compute_gradient
from backupsync_worker.tensors.flat_model import FlatModel
from backupsync_worker.tensors.seeding import seed_everything

torch.set_num_threads(1)
seed_everything(4, "init")
model = nn.Sequential(nn.Linear(6, 32), nn.BatchNorm1d(32), nn.Dropout(), nn.Linear(32, 3))
generator = torch.Generator().manual_seed(0)
data = TensorDataset(torch.randn(40, 6, generator=generator), torch.randint(3, (40,), generator=generator))
batches = Batches(data, 16, seed=4, micro_batches=2)
flat = FlatModel(model, "float32", 4096)
loss_of = lambda batch: nn.functional.cross_entropy(model(batch[0]), batch[1])
for ticket in map(int, sys.argv[1:]):
    got = hashlib.sha256()
    parts = batches.get(ticket)
    done = compute_gradient(flat, loss_of, parts, 4, ticket, "None", lambda o, v: got.update(v), lambda: None)
    print(ticket, done.loss, done.norm, got.hexdigest())
"""


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 3))


def plain_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 3))


def examples(count: int = 40) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(
        torch.randn(count, 6, generator=generator), torch.randint(3, (count,), generator=generator)
    )


def cross_entropy(model: nn.Module) -> Callable[[Any], Tensor]:
    return lambda batch: nn.functional.cross_entropy(model(batch[0]), batch[1])


def go_on() -> None:
    pass


class Worker:
    """A model, its data and what leaves it."""

    def __init__(self, model: nn.Module, parts: int = 1, wire: str = "float32", seed: int = 4) -> None:
        self.model, self.seed = model, seed
        self.flat = FlatModel(model, wire, 4096)
        self.batches = Batches(examples(), 16, seed, micro_batches=parts)
        self.chunks: list[tuple[int, bytes]] = []

    def compute(self, ticket: int, autocast: str = "None", check: Callable[[], None] = go_on) -> Computed:
        self.chunks = []
        return compute_gradient(
            self.flat,
            cross_entropy(self.model),
            self.batches.get(ticket),
            self.seed,
            ticket,
            autocast,
            lambda offset, view: self.chunks.append((offset, bytes(view))),
            check,
        )

    @property
    def gradient(self) -> bytes:
        return b"".join(data for _, data in sorted(self.chunks))


# ---- the numbers -----------------------------------------------------------------------------------------


def test_a_loss_of_another_model_changes_nothing_here_and_is_refused():
    worker = Worker(plain_network())
    worker.model = plain_network()  # what the loss is computed with; attached is the first
    with pytest.raises(ProgramError, match="depends on no trainable parameter of the attached model"):
        worker.compute(0)


def test_gradient_and_loss_are_those_of_torch_on_the_whole_mini_batch():
    worker = Worker(plain_network())
    done = worker.compute(0)
    model = copy.deepcopy(worker.model)
    loss = cross_entropy(model)(worker.batches.get(0)[0].data)
    loss.backward()
    expected = torch.cat([p.grad.reshape(-1) for p in reversed(list(model.parameters()))])
    assert worker.gradient == expected.numpy().tobytes()
    assert (done.loss, done.examples) == (loss.item(), 16)
    assert done.norm == pytest.approx(expected.norm().item(), rel=1e-6)


@pytest.mark.parametrize("ticket", [0, 2])
@pytest.mark.parametrize("parts", [2, 3, 4])
def test_micro_batches_add_up_to_the_mean_over_the_mini_batch(parts, ticket):
    whole, split = Worker(plain_network()), Worker(plain_network(), parts)
    one, many = whole.compute(ticket), split.compute(ticket)
    assert one.examples == many.examples == (16, 16, 8)[ticket]
    assert many.loss == pytest.approx(one.loss, rel=1e-5)
    a, b = (torch.frombuffer(bytearray(w.gradient), dtype=torch.float32) for w in (whole, split))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_micro_batches_of_unequal_size_weigh_by_their_examples():
    model = nn.Linear(1, 1, bias=False)
    flat = FlatModel(model, "float32", 4096)
    parts = [MicroBatch(torch.ones(3, 1), 3, 0.75), MicroBatch(torch.full((1, 1), 5.0), 1, 0.25)]
    got: list[memoryview] = []
    compute_gradient(flat, lambda x: model(x).mean(), parts, 1, 0, "None", lambda o, v: got.append(v), go_on)
    assert torch.frombuffer(bytearray(got[0]), dtype=torch.float32).item() == 2.0


def test_chunks_leave_in_the_last_micro_batch_alone():
    worker = Worker(plain_network(), parts=4)
    backwards = 0

    def count(grad: Tensor) -> None:
        nonlocal backwards
        backwards += 1

    worker.model[2].weight.register_hook(count)
    when: list[int] = []
    compute_gradient(
        worker.flat,
        cross_entropy(worker.model),
        worker.batches.get(0),
        1,
        0,
        "None",
        lambda offset, view: when.append(backwards),
        go_on,
    )
    assert set(when) == {4}


def test_autocast_computes_in_bfloat16_and_keeps_gradients_in_float32():
    seen: list[torch.dtype] = []
    worker = Worker(plain_network())
    worker.model[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    precise, rough = worker.compute(0), worker.compute(0, "bfloat16")
    assert seen == [torch.float32, torch.bfloat16]
    assert rough.loss == pytest.approx(precise.loss, rel=0.05)
    assert rough.loss != precise.loss


def test_a_loss_in_bfloat16_is_weighted_in_float32():
    model = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    flat = FlatModel(model, "float32", 4096)
    parts = [MicroBatch(torch.ones(1, 1, dtype=torch.bfloat16), 1, 1 / 3) for _ in range(3)]
    done = compute_gradient(flat, lambda x: model(x).mean(), parts, 1, 0, "None", lambda o, v: None, go_on)
    assert done.loss == pytest.approx(model.weight.item(), rel=1e-6)


# ---- purity ----------------------------------------------------------------------------------------------


def test_the_same_ticket_twice_gives_the_same_bits():
    worker = Worker(network(), parts=2)
    first, bits = worker.compute(3), worker.gradient
    worker.compute(8)
    torch.rand(7)
    assert worker.compute(3) == first
    assert worker.gradient == bits


def test_another_ticket_gives_other_bits():
    worker = Worker(network())
    worker.compute(3)
    bits = worker.gradient
    worker.compute(4)
    assert worker.gradient != bits


def test_buffers_start_as_loaded_for_every_ticket_and_are_sent_as_they_became():
    worker = Worker(network())
    loaded = worker.flat.buffers()
    worker.compute(3)
    after = worker.flat.buffers()
    assert after != loaded
    worker.compute(5)
    worker.compute(3)
    assert worker.flat.buffers() == after, "no trace of ticket 5"


def test_other_processes_compute_the_same_bits_in_any_order():
    def elsewhere(*tickets: int) -> set[str]:
        command = [sys.executable, "-c", ELSEWHERE, *map(str, tickets)]
        return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines())

    assert elsewhere(0, 5, 2) == elsewhere(2, 0, 5)


# ---- giving up -------------------------------------------------------------------------------------------


def abandoning_at(call: int) -> Callable[[], None]:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise Abandon

    return check


def boundaries(parts: int) -> int:
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1

    Worker(network(), parts, "float32").compute(1, check=count)
    return calls


def test_every_micro_batch_and_every_chunk_is_a_boundary():
    worker = Worker(network(), parts=2)
    worker.compute(1)
    assert boundaries(2) == 2 + len(worker.chunks)


@pytest.mark.parametrize("call", range(1, boundaries(2) + 1))
def test_a_batch_given_up_at_any_boundary_leaves_model_and_generators_fit_for_the_next(call):
    undisturbed = Worker(network(), parts=2)
    expected = undisturbed.compute(6)
    worker = Worker(network(), parts=2)
    before = worker.flat.initial()[0]
    with pytest.raises(Abandon):
        worker.compute(1, check=abandoning_at(call))
    assert all(p.grad is None for p in worker.model.parameters())
    assert worker.flat.initial()[0] == before, "the buffers are as they were loaded"
    assert worker.compute(6) == expected
    assert worker.gradient == undisturbed.gradient


def test_what_the_program_raises_passes_through_and_leaves_nothing_behind():
    worker = Worker(network())

    def broken(batch: Any) -> Tensor:
        worker.model(batch[0])
        raise KeyError("label")

    with pytest.raises(KeyError):
        compute_gradient(worker.flat, broken, worker.batches.get(0), 1, 0, "None", lambda o, v: None, go_on)
    assert worker.compute(6) == Worker(network()).compute(6)


# ---- losses that are none --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda model, batch: 1.0, r"loss: is a float, must be a tensor"),
        (lambda model, batch: model(batch[0]), r"loss: is torch.float32\[16, 3\], must be one floating"),
        (lambda model, batch: torch.tensor(1), r"loss: is torch.int64\[\], must be one floating"),
        (lambda model, batch: torch.tensor(1.0), r"loss: does not depend on a trainable parameter"),
        (lambda model, batch: model(batch[0]).mean().detach(), r"loss: does not depend on"),
    ],
)
def test_a_loss_that_cannot_be_differentiated_is_refused_in_clear_words(loss, words):
    worker = Worker(network())
    with pytest.raises(ProgramError, match=words):
        compute_gradient(
            worker.flat,
            lambda batch: loss(worker.model, batch),
            worker.batches.get(0),
            1,
            0,
            "None",
            lambda o, v: None,
            go_on,
        )


def test_a_loss_that_is_not_finite_is_reported_not_raised():
    worker = Worker(plain_network())
    with torch.no_grad():
        worker.model[0].bias[0] = float("nan")
    done = worker.compute(0)
    assert not done.finite
    assert done.loss != done.loss


# ---- clipping --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("norm", "limit", "scale"),
    [
        (4.0, 1.0, 0.25),
        (0.5, 1.0, 1.0),
        (1.0, 1.0, 1.0),
        (0.0, 1.0, 1.0),
        (9.0, None, 1.0),
        (float("nan"), 1.0, 1.0),
    ],
)
def test_a_gradient_is_clipped_to_a_global_norm_and_never_grows(norm, limit, scale):
    assert clip_scale(norm, limit) == scale
