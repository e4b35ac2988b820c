"""The device of a worker, as far as it can be told without a GPU."""

from collections import OrderedDict, defaultdict, namedtuple

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

from backupsync.errors import BackupSyncError, ProgramError
from backupsync_worker.tensors.device import autocast_dtype, resolve_device, to_device

CPU, META = torch.device("cpu"), torch.device("meta")
Pair = namedtuple("Pair", ["image", "label"])


@pytest.fixture
def cuda_devices(monkeypatch):
    def pretend(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return pretend


def test_auto_takes_cuda_where_there_is_some(cuda_devices):
    cuda_devices(0)
    assert resolve_device("auto") == CPU
    cuda_devices(2)
    assert resolve_device("auto") == torch.device("cuda")


def test_the_cpu_is_taken_when_asked_for_even_where_there_is_cuda(cuda_devices):
    cuda_devices(2)
    assert resolve_device("cpu") == CPU


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_cuda_where_there_is_none_is_refused_with_the_remedy(cuda_devices, name):
    cuda_devices(0)
    with pytest.raises(
        BackupSyncError, match=rf"spec.training.device = '{name}'.*finds no CUDA.*auto or cpu"
    ):
        resolve_device(name)


def test_an_index_beyond_the_devices_is_refused_with_the_valid_ones(cuda_devices):
    cuda_devices(2)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(BackupSyncError, match=r"'cuda:2': .*has 2 CUDA.* from 0 to 1"):
        resolve_device("cuda:2")


def test_autocast_in_float16_is_for_cuda_alone():
    assert autocast_dtype("None", CPU) is None
    assert autocast_dtype("bfloat16", CPU) is torch.bfloat16
    assert autocast_dtype("float16", torch.device("cuda")) is torch.float16
    with pytest.raises(ProgramError, match=r"spec.training.autocast = 'float16' on device cpu.*set bfloat16"):
        autocast_dtype("float16", CPU)


def test_nested_batches_keep_their_kinds():
    batch = {
        "pair": Pair(torch.zeros(2), [torch.ones(1), "text"]),
        "ordered": OrderedDict(a=torch.zeros(1)),
        "default": defaultdict(list, a=torch.zeros(1)),
        3: (torch.zeros(1), 7, None),
    }
    moved = to_device(batch, META)
    assert type(moved["pair"]) is Pair
    assert type(moved["ordered"]) is OrderedDict
    assert type(moved["default"]) is defaultdict
    assert moved["default"].default_factory is list
    assert moved["pair"].label[1] == "text"
    assert moved[3][1:] == (7, None)
    tensors = [
        moved["pair"].image,
        moved["pair"].label[0],
        moved["ordered"]["a"],
        moved["default"]["a"],
        moved[3][0],
    ]
    assert all(t.device == META for t in tensors)


def test_the_batch_itself_is_left_as_it_is():
    batch = {"a": [torch.zeros(1)]}
    to_device(batch, META)
    assert batch["a"][0].device == CPU


def test_whatever_knows_how_to_move_moves_itself():
    packed = pack_sequence([torch.ones(3), torch.ones(2)])
    assert to_device(packed, META).data.device == META


def test_pinning_is_left_out_where_the_device_is_the_cpu():
    moved = to_device([torch.zeros(1)], CPU, pin_memory=True)
    assert not moved[0].is_pinned()
