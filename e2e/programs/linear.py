"""Tiny programs of the end-to-end tests: one that learns, and ones that are faulty as their args say."""

import json
import os
import random
import time

import torch
from torch import nn
from torch.utils.data import TensorDataset

from backupsync_worker import Program


class Linear(Program):
    """Linear regression on synthetic data; a step takes `step_seconds`, give or take half, by its ticket."""

    def __init__(self, step_seconds: float = 0.0) -> None:
        self.step_seconds = step_seconds
        me = json.loads(os.environ["BACKUPSYNC_WORKER"])
        self.rank, self.attempt, self.steps = me["rank"], me["attempt"], 0
        self.x = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
        self.y = self.x @ torch.tensor([[1.0], [-2.0], [3.0], [0.5]])

    def model(self) -> nn.Module:
        return nn.Linear(4, 1)

    def dataset(self) -> TensorDataset:
        return TensorDataset(self.x, self.y)

    def loss(self, model: nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
        self.steps += 1
        time.sleep(self.step_seconds * random.uniform(0.5, 1.5))
        x, y = batch
        return nn.functional.mse_loss(model(x), y)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {"mse": nn.functional.mse_loss(model(self.x), self.y).item()}


class Crashing(Linear):
    """Rank `rank` raises in its step `at`, in its first `attempts` attempts (0: in every one)."""

    def __init__(self, at: int = 0, rank: int = 0, attempts: int = 0, step_seconds: float = 0.0) -> None:
        super().__init__(step_seconds)
        self.at = at
        self.faulty = self.rank == rank and (attempts == 0 or self.attempt <= attempts)

    def loss(self, model: nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
        if self.faulty and self.steps >= self.at:
            self.fail()
        return super().loss(model, batch)

    def fail(self) -> None:
        raise ValueError(f"the cat sat on rank {self.rank}")


class Hungry(Crashing):
    """Instead of raising, takes all the memory there is."""

    def fail(self) -> None:
        eaten = []
        while True:
            eaten.append(bytearray(os.urandom(1 << 20) * 32))
