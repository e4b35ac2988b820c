"""A script with its own loop over a stream that ends earlier on some workers than on others."""

import torch
from torch.utils.data import IterableDataset

import backupsync_worker

BATCH = 4


class Stream(IterableDataset):
    """As many mini-batches as `lengths` says for this worker's rank."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths
        self.rank = 0

    def shard(self, rank: int, total: int) -> "Stream":
        self.rank = rank
        return self

    def __iter__(self):
        for _ in range(BATCH * self.lengths[self.rank]):
            x = torch.randn(4)
            yield x, x.sum(0, keepdim=True)


def main() -> None:
    with backupsync_worker.join() as session:
        dataset = Stream(session.args["lengths"])
        model = session.attach(torch.nn.Linear(4, 1), dataset)
        for _ in session:
            x, y = session.batch()
            session.push((model(x) - y).square().mean())


if __name__ == "__main__":
    main()
