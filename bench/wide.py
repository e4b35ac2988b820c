"""The model both sides of the benchmark train: many parameters, nearly no compute.

A stack of 1,024 × 1,024 linear layers on a single example: P parameters cost 2·P multiplications forward.
"""

import torch
from torch import nn
from torch.utils.data import TensorDataset

from backupsync_worker import Program

WIDTH = 1024
LEARNING_RATE = 1e-3
MOMENTUM = 0.9


def build(million_parameters: int) -> nn.Module:
    """A stack of `million_parameters` layers of 1,024 × 1,024 (1.05 M parameters each)."""
    return nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(million_parameters)))


def examples(count: int) -> TensorDataset:
    """`count` random inputs of width 1,024."""
    return TensorDataset(torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(0)))


def loss(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Mean square of the output."""
    return model(inputs).square().mean()


class Wide(Program):
    """The stack as a Program."""

    def __init__(self, million_parameters: int) -> None:
        self.million_parameters = million_parameters

    def model(self) -> nn.Module:
        """The stack."""
        return build(self.million_parameters)

    def dataset(self) -> TensorDataset:
        """Random inputs."""
        return examples(1024)

    def loss(self, model: nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
        """Mean square of the output."""
        return loss(model, batch[0])
