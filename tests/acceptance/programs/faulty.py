"""A sound program, one whose steps take unequal times, and programs that are faulty, each in its own way."""

import json
import os
import random
import subprocess
import threading
import time

import torch
from torch import nn
from torch.utils.data import TensorDataset

from backupsync_worker import Program


class Sound(Program):
    """Nothing is wrong with this one; the others change one thing."""

    def __init__(self, size: int = 4) -> None:
        self.size = size

    def model(self) -> nn.Module:
        return nn.Linear(self.size, 1)

    def dataset(self) -> TensorDataset:
        x = torch.randn(64, self.size, generator=torch.Generator().manual_seed(0))
        return TensorDataset(x, x.sum(1, keepdim=True))

    def loss(self, model: nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
        x, y = batch
        return (model(x) - y).square().mean()


class Uneven(Sound):
    """Steps of 5 to 35 ms, by ticket: with equal ones the same worker would be late again and again."""

    def loss(self, model: nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
        time.sleep(random.uniform(0.005, 0.035))
        return super().loss(model, batch)


class WithoutParameters(Sound):
    def model(self) -> nn.Module:
        return nn.ReLU()


class NotFinite(Sound):
    def loss(self, model: nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
        return super().loss(model, batch) * float("nan")


class DifferentOnRankOne(Sound):
    def model(self) -> nn.Module:
        rank = json.loads(os.environ["BACKUPSYNC_WORKER"])["rank"]
        return nn.Linear(self.size, 1 + (rank == 1))


class HangsOnce(Sound):
    """The first attempt of rank 0 never comes out of its third step; its process lives on."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def loss(self, model: nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
        me = json.loads(os.environ["BACKUPSYNC_WORKER"])
        self.steps += 1
        if (me["rank"], me["attempt"], self.steps) == (0, 1, 3):
            threading.Event().wait()
        return super().loss(model, batch)


class OutOfMemory(Sound):
    def loss(self, model: nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
        raise MemoryError("no room for the batch")


class WithChildren(Sound):
    """Leaves a process of its own running."""

    def dataset(self) -> TensorDataset:
        self.child = subprocess.Popen(["sleep", "1000"])
        return super().dataset()


class Unfinished:
    """No Program: it has no dataset and no loss."""

    def model(self) -> nn.Module:
        return nn.Linear(1, 1)
