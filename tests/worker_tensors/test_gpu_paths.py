"""What only a CUDA device can show: pinned copies, streams, seeds, autocast."""

import copy

import pytest
import torch
from torch import nn

from backupsync_worker.data.batches import Batches
from backupsync_worker.tensors.compute import compute_gradient
from backupsync_worker.tensors.device import resolve_device, to_device
from backupsync_worker.tensors.flat_model import FlatModel
from backupsync_worker.tensors.seeding import preserved, seed_everything

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(64, 512), nn.BatchNorm1d(512), nn.ReLU()]
    layers += [layer for _ in range(4) for layer in (nn.Linear(512, 512), nn.Tanh())]
    return nn.Sequential(*layers, nn.Dropout(), nn.Linear(512, 8)).to(resolve_device("cuda"))


def compute(flat: FlatModel, ticket: int = 0, autocast: str = "None"):
    data = [(torch.full((64,), n / 40), n % 8) for n in range(40)]
    batches = Batches(data, 32, seed=1, device=flat.device, micro_batches=2)
    chunks: list[tuple[int, memoryview]] = []

    def loss_of(batch):
        return nn.functional.cross_entropy(flat.model(batch[0]), batch[1])

    done = compute_gradient(
        flat,
        loss_of,
        batches.get(ticket),
        1,
        ticket,
        autocast,
        lambda o, v: chunks.append((o, v)),
        lambda: None,
    )
    return done, b"".join(bytes(v) for _, v in sorted(chunks, key=lambda c: c[0]))


@pytest.mark.parametrize("wire", ["float32", "bfloat16"])
def test_the_pushed_gradient_is_the_one_on_the_device(model, wire):
    dtype = getattr(torch, wire)
    flat = FlatModel(model, wire, 64 * 1024)
    inputs = torch.randn(16, 64, device="cuda")
    seed_everything(1, "x")
    twin = copy.deepcopy(model)
    twin(inputs).square().mean().backward()
    expected = torch.cat([p.grad.reshape(-1).to(dtype) for p in reversed(list(twin.parameters()))]).cpu()
    seed_everything(1, "x")
    chunks: list[tuple[int, memoryview]] = []
    flat.gradient.begin(lambda offset, view: chunks.append((offset, view)))
    model(inputs).square().mean().backward()
    summary = flat.gradient.finish()
    data = b"".join(bytes(v) for _, v in sorted(chunks, key=lambda c: c[0]))
    assert torch.equal(torch.frombuffer(bytearray(data), dtype=dtype), expected)
    assert summary.norm == pytest.approx(
        torch.cat([p.grad.reshape(-1) for p in twin.parameters()]).norm().item(), rel=1e-5
    )


def test_the_same_ticket_twice_gives_the_same_bits(model):
    flat = FlatModel(model, "float32", 64 * 1024)
    first = compute(flat, 1)
    compute(flat, 0)
    assert compute(flat, 1) == first


def test_sections_travel_between_cpu_and_gpu(model):
    on_cpu = copy.deepcopy(model).cpu()
    for tensor in on_cpu.state_dict().values():
        tensor.zero_()
    moving, _ = FlatModel(model, "float32", 4096).initial()
    flat = FlatModel(on_cpu, "float32", 4096)
    flat.load("moving", moving)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor.cpu(), on_cpu.state_dict()[name]), name
    back = FlatModel(model, "float32", 4096)
    pointers = [p.data_ptr() for p in model.parameters()]
    back.load("moving", flat.initial()[0])
    assert pointers == [p.data_ptr() for p in model.parameters()]
    assert back.initial()[0] == moving
    assert back.buffers() == flat.buffers()


@pytest.mark.parametrize("autocast", ["bfloat16", "float16"])
def test_autocast_trains_in_the_asked_for_type(model, autocast):
    flat = FlatModel(model, "float32", 64 * 1024)
    seen: list[torch.dtype] = []
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    done, _ = compute(flat, 0, autocast)
    assert done.finite
    assert set(seen) == {getattr(torch, autocast)}


def test_dropout_on_the_device_is_seeded_and_preserved():
    ones = torch.ones(64, device="cuda")
    seed_everything(1, "a")
    first, second = (nn.functional.dropout(ones) for _ in range(2))
    seed_everything(1, "a")
    assert torch.equal(nn.functional.dropout(ones), first)
    with preserved():
        seed_everything(2, "b")
        nn.functional.dropout(ones)
    assert torch.equal(nn.functional.dropout(ones), second)


def test_pinned_batches_arrive_whole():
    batch = {"x": torch.arange(100000.0), "y": [torch.ones(3)]}
    moved = to_device(batch, resolve_device("auto"), pin_memory=True)
    assert moved["x"].is_cuda
    assert torch.equal(moved["x"].cpu(), batch["x"])
