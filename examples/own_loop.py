"""One's own training loop: three calls around a script that already exists."""

import torch
from sklearn.datasets import load_diabetes
from torch import nn
from torch.utils.data import TensorDataset

import backupsync_worker


def load() -> TensorDataset:
    """The diabetes regression data, standardised."""
    features, target = load_diabetes(return_X_y=True)
    x = torch.tensor(features, dtype=torch.float32) * 20
    y = torch.tensor(target, dtype=torch.float32)
    return TensorDataset(x, ((y - y.mean()) / y.std()).unsqueeze(1))


def main() -> None:
    with backupsync_worker.join() as session:
        hidden = int(session.args.get("hidden", 32))
        dataset = load()
        model = session.attach(nn.Sequential(nn.Linear(10, hidden), nn.Tanh(), nn.Linear(hidden, 1)))
        for _ in session:  # the newest parameters are in `model`
            x, y = session.batch(dataset)
            error = model(x) - y
            session.push(error.square().mean())
            session.log(absolute_error=error.abs().mean().item())


if __name__ == "__main__":
    main()
