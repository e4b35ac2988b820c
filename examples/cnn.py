"""A small convolutional network with BatchNorm, whose running statistics (buffers) matter at evaluation.

Trains on Fashion-MNIST where Debian's package `dataset-fashion-mnist` is installed, else on the scikit-learn
digits enlarged to the same 28 × 28: the program is the same.
"""

import gzip
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

from backupsync_worker import Program

FASHION_MNIST = Path("/usr/share/dataset-fashion-mnist")


class ConvNet(Program):
    """Ten classes from 28 × 28 grey images."""

    def __init__(self, channels: int = 8, data: str = "auto", train_examples: int = 1440) -> None:
        self.channels = channels
        if data == "fashion" or (data == "auto" and FASHION_MNIST.exists()):
            images, labels = read_fashion_mnist()
        else:
            images, labels = read_digits()
        self.train = TensorDataset(images[:train_examples], labels[:train_examples])
        self.test = TensorDataset(images[train_examples:][:1000], labels[train_examples:][:1000])

    def model(self) -> nn.Module:
        c = self.channels
        return nn.Sequential(
            nn.Conv2d(1, c, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(c),
            nn.ReLU(),
            nn.Conv2d(c, 2 * c, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(2 * c),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(32 * c, 10),
        )

    def dataset(self) -> TensorDataset:
        return self.train

    def loss(self, model: nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(model(images), labels)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        device = next(model.parameters()).device
        images, labels = (tensor.to(device) for tensor in self.test.tensors)
        return {"accuracy": (model(images).argmax(1) == labels).float().mean().item()}


def read_digits() -> tuple[torch.Tensor, torch.Tensor]:
    """The 8 × 8 digits at 28 × 28, shuffled."""
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    pixels = torch.tensor(images / 16.0, dtype=torch.float32).view(-1, 1, 8, 8)[order]
    return nn.functional.interpolate(pixels, size=28, mode="bilinear"), torch.tensor(labels)[order]


def read_fashion_mnist() -> tuple[torch.Tensor, torch.Tensor]:
    """The 60,000 training images of Fashion-MNIST (IDX files)."""
    images = read_idx(FASHION_MNIST / "train-images-idx3-ubyte.gz", header=16).reshape(-1, 1, 28, 28)
    labels = read_idx(FASHION_MNIST / "train-labels-idx1-ubyte.gz", header=8)
    return torch.tensor(images / 255.0, dtype=torch.float32), torch.tensor(labels.astype(np.int64))


def read_idx(path: Path, header: int) -> np.ndarray:
    """The bytes of an IDX file behind its header."""
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), dtype=np.uint8, offset=header)
