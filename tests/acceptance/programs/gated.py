"""A script with its own loop that waits at gates: iterations it does not begin before a file exists."""

import time
from pathlib import Path

import torch
from torch.utils.data import TensorDataset

import backupsync_worker


def wait_at(gates: dict[str, str], iteration: int) -> None:
    for number, file in gates.items():
        while iteration >= int(number) and not Path(file).exists():
            time.sleep(0.005)


def main() -> None:
    with backupsync_worker.join() as session:
        x = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
        dataset = TensorDataset(x, x @ torch.tensor([[1.0], [-2.0], [3.0], [0.5]]))
        size = session.args.get("size", 1)
        model = session.attach(
            torch.nn.Sequential(torch.nn.Linear(4, size), torch.nn.Linear(size, 1)), dataset
        )
        for iteration in session:
            wait_at(session.args.get("gates", {}), iteration.iteration)
            features, target = session.batch()
            session.push((model(features) - target).square().mean())


if __name__ == "__main__":
    main()
