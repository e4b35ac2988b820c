"""The finished model, as its owner loads it."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from backupsync_aggregator.checkpoints.checkpoint import CheckpointDirectory


class Everything(nn.Module):
    """Tied weights, a frozen part, buffers of two kinds, a half part, a buffer that is not persistent."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 4)
        self.body = nn.Linear(4, 4).to(torch.bfloat16)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("scratch", torch.zeros(2), persistent=False)


@pytest.fixture
def trained(toys):
    torch.manual_seed(1)
    seen = toys.seen(Everything())
    state = seen.state(toys.spec(emaDecay=0.9))
    for step in range(3):
        state.apply(toys.gradients(seen.schema, 2, step, buffers=seen.buffers()), 8 * step)
    return state


def written(tmp_path, state) -> list[str]:
    directory = CheckpointDirectory(tmp_path, 3)
    directory.claim(1, "test")
    return [path.name for path in directory.save_model(state)]


@pytest.mark.parametrize(
    ("name", "averaged"), [("model.safetensors", False), ("model-ema.safetensors", True)]
)
def test_load_state_dict_takes_the_file_as_it_is(toys, tmp_path, trained, name, averaged):
    assert written(tmp_path, trained) == ["model.safetensors", "model-ema.safetensors"]
    mine = Everything()
    mine.load_state_dict(load_file(tmp_path / name), strict=True)
    assert mine.head.weight is mine.embedding.weight
    section = trained.evaluation_section() if averaged else trained.published()
    loaded = mine.state_dict()
    for tensor, value in toys.values(trained.schema, section).items():
        assert loaded[tensor].dtype is value.dtype
        assert torch.equal(loaded[tensor], value)


def test_every_name_of_tied_weights_is_in_the_file(tmp_path, trained):
    written(tmp_path, trained)
    tensors = load_file(tmp_path / "model.safetensors")
    assert set(tensors) == set(Everything().state_dict())
    assert torch.equal(tensors["head.weight"], tensors["embedding.weight"])


def test_the_average_differs_from_the_parameters_and_shares_the_buffers(tmp_path, trained):
    written(tmp_path, trained)
    plain, average = (load_file(tmp_path / name) for name in ("model.safetensors", "model-ema.safetensors"))
    assert not torch.equal(plain["body.weight"], average["body.weight"])
    assert torch.equal(plain["norm.running_mean"], average["norm.running_mean"])


def test_without_an_average_there_is_one_file(toys, tmp_path):
    seen = toys.seen(nn.Linear(2, 2))
    assert written(tmp_path, seen.state(toys.spec())) == ["model.safetensors"]


def test_a_model_written_again_replaces_the_first_at_once(toys, tmp_path):
    seen = toys.seen(nn.Linear(2, 2))
    state = seen.state(toys.spec())
    directory = CheckpointDirectory(tmp_path, 3)
    directory.claim(1, "test")
    directory.save_model(state)
    state.apply(toys.gradients(seen.schema, 1, 0), 0)
    directory.save_model(state)
    published = toys.values(seen.schema, state.published())["weight"]
    assert torch.equal(load_file(tmp_path / "model.safetensors")["weight"], published)
