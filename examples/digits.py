"""The scikit-learn digits (1,797 images of 8 × 8) by a two-layer perceptron: the smallest real job."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

from backupsync_worker import Program

TRAIN = 1440


class Digits(Program):
    """Classify digits; the last 357 images are held out for `evaluate`."""

    def __init__(self, hidden: int = 64) -> None:
        self.hidden = hidden
        images, labels = load_digits(return_X_y=True)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        self.images = torch.tensor(images / 16.0, dtype=torch.float32)[order]
        self.labels = torch.tensor(labels)[order]

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(64, self.hidden), nn.ReLU(), nn.Linear(self.hidden, 10))

    def dataset(self) -> TensorDataset:
        return TensorDataset(self.images[:TRAIN], self.labels[:TRAIN])

    def loss(self, model: nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(model(images), labels)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        device = next(model.parameters()).device
        images, labels = self.images[TRAIN:].to(device), self.labels[TRAIN:].to(device)
        logits = model(images)
        return {
            "accuracy": (logits.argmax(1) == labels).float().mean().item(),
            "test_loss": nn.functional.cross_entropy(logits, labels).item(),
        }
