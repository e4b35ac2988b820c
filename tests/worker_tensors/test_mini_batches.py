"""Batches: the mini-batch is a pure function of (seed, ticket), whoever reads it."""

import random
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from backupsync.errors import ProgramError
from backupsync_worker.data.batches import Batches, EndOfData, MicroBatch

TEN = list(range(10))


def contents(micro_batches: list[MicroBatch]) -> list[Any]:
    return [micro.data.tolist() for micro in micro_batches]


def batch(batches: Batches, ticket: int) -> list[Any]:
    (micro,) = batches.get(ticket)
    return micro.data.tolist()


class Augmented(Dataset):
    """Draws from every global generator, as augmentation does."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([index, random.random(), np.random.rand(), torch.rand(()).item()])


# ---- which examples --------------------------------------------------------------------------------------


def test_every_pass_over_the_data_sees_every_example_once():
    batches = Batches(TEN, 4, seed=1)
    assert batches.batches_per_epoch == 3
    for epoch in range(3):
        seen = [x for n in range(3) for x in batch(batches, 3 * epoch + n)]
        assert sorted(seen) == TEN


def test_passes_are_permutations_of_their_own():
    batches = Batches(list(range(100)), 100, seed=1)
    assert len({tuple(batch(batches, epoch)) for epoch in range(5)}) == 5


def test_the_last_short_mini_batch_of_a_pass_is_kept():
    batches = Batches(TEN, 4, seed=1)
    assert [len(batch(batches, ticket)) for ticket in range(4)] == [4, 4, 2, 4]


def test_a_mini_batch_depends_on_seed_and_ticket_alone():
    forward, backward = Batches(TEN, 3, seed=5), Batches(TEN, 3, seed=5)
    tickets = [0, 3, 11, 12, 400]
    ahead = {t: batch(forward, t) for t in tickets}
    back = {t: batch(backward, t) for t in reversed(tickets)}
    assert ahead == back
    assert ahead != {t: batch(Batches(TEN, 3, seed=6), t) for t in tickets}


def test_indices_name_the_examples_without_reading_them():
    batches = Batches(TEN, 4, seed=1)
    assert batches.indices(7) == batch(batches, 7)


def test_a_batch_larger_than_the_data_is_the_whole_data():
    batches = Batches(TEN, 64, seed=1)
    assert batches.batches_per_epoch == 1
    assert sorted(batch(batches, 9)) == TEN


# ---- random numbers --------------------------------------------------------------------------------------


def test_augmentation_is_a_function_of_seed_and_ticket():
    first, second = Batches(Augmented(), 20, seed=3), Batches(Augmented(), 20, seed=3)
    torch.rand(5)
    assert batch(first, 1) == batch(second, 1)
    assert batch(first, 1) != batch(Batches(Augmented(), 20, seed=4), 1)
    rows = batch(first, 0)
    assert len({tuple(row[1:]) for row in rows}) == 20, "no two examples share their random numbers"


def test_reading_data_leaves_the_generators_of_the_computation_alone():
    batches = Batches(Augmented(), 20, seed=3)
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    expected = torch.rand(3).tolist(), random.random(), np.random.rand()
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    batches.get(0)
    assert (torch.rand(3).tolist(), random.random(), np.random.rand()) == expected


def test_augmentation_does_not_depend_on_how_the_mini_batch_is_split():
    whole = batch(Batches(Augmented(), 20, seed=3), 1)
    parts = contents(Batches(Augmented(), 20, seed=3, micro_batches=4).get(1))
    assert [row for part in parts for row in part] == whole


def test_a_collate_that_draws_is_seeded_by_the_ticket():
    def mix(examples):
        return torch.tensor([random.random(), torch.rand(()).item()])

    batches = Batches(TEN, 4, seed=1, collate=mix)
    assert batch(batches, 2) == batch(batches, 2)
    assert batch(batches, 2) != batch(batches, 3)


# ---- micro-batches ---------------------------------------------------------------------------------------


def test_a_mini_batch_is_split_in_order_into_equal_micro_batches():
    micro = Batches(TEN, 8, seed=1, micro_batches=4).get(0)
    assert [m.examples for m in micro] == [2, 2, 2, 2]
    assert [m.weight for m in micro] == [0.25] * 4
    assert [x for part in contents(micro) for x in part] == batch(Batches(TEN, 8, seed=1), 0)


def test_a_short_mini_batch_is_split_as_evenly_as_can_be_and_weighted_by_size():
    micro = Batches(list(range(15)), 8, seed=1, micro_batches=4).get(1)
    assert [m.examples for m in micro] == [2, 2, 2, 1]
    assert [m.weight for m in micro] == [2 / 7, 2 / 7, 2 / 7, 1 / 7]


def test_a_mini_batch_with_fewer_examples_than_parts_makes_fewer():
    micro = Batches(TEN, 8, seed=1, micro_batches=4).get(1)
    assert [m.examples for m in micro] == [1, 1]
    assert sum(m.weight for m in micro) == 1


# ---- kinds of data ---------------------------------------------------------------------------------------

Pair = namedtuple("Pair", ["image", "label"])


@pytest.mark.parametrize(
    ("dataset", "kind"),
    [
        ([(torch.zeros(2), 1)] * 4, list),
        ([{"image": np.zeros(2, dtype=np.float32), "label": 1}] * 4, dict),
        (((np.zeros(2), 1),) * 4, list),
        ([Pair(torch.zeros(2), 1)] * 4, Pair),
        (TensorDataset(torch.zeros(4, 2), torch.zeros(4)), list),
        (Subset(TensorDataset(torch.zeros(9, 2)), [1, 2, 3, 5]), list),
    ],
)
def test_lists_tuples_arrays_mappings_and_torch_datasets_are_collated_as_torch_does(dataset, kind):
    (micro,) = Batches(dataset, 4, seed=1).get(0)
    assert type(micro.data) is kind
    first = next(iter(micro.data.values())) if kind is dict else micro.data[0]
    assert isinstance(first, torch.Tensor)
    assert first.shape == (4, 2)


def test_a_dataset_that_reads_many_at_once_is_asked_so():
    class AtOnce(Dataset):
        def __len__(self):
            return 10

        def __getitem__(self, index):
            raise AssertionError("asked one by one")

        def __getitems__(self, indices):
            return [torch.tensor(index) for index in indices]

    assert sorted(batch(Batches(AtOnce(), 10, seed=1), 0)) == TEN


def test_the_programs_own_collate_joins_the_examples():
    (micro,) = Batches(TEN, 4, seed=1, collate=lambda examples: {"sum": sum(examples)}).get(0)
    assert micro.data == {"sum": sum(batch(Batches(TEN, 4, seed=1), 0))}


@pytest.mark.parametrize("dataset", [[], TensorDataset(torch.zeros(0, 3))])
def test_data_without_examples_is_refused(dataset):
    with pytest.raises(ProgramError, match="dataset: has no examples"):
        Batches(dataset, 4, seed=1)


@pytest.mark.parametrize("dataset", [42, None, iter([1]), {"train": [1, 2]}])
def test_data_of_no_known_kind_is_refused(dataset):
    with pytest.raises(ProgramError, match=r"dataset: is a .*, must have a length and items"):
        Batches(dataset, 4, seed=1)


def test_what_the_dataset_raises_reaches_the_caller_as_it_is():
    class Broken(Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            raise LookupError("no such file")

    with pytest.raises(LookupError, match="no such file"):
        Batches(Broken(), 3, seed=1).get(0)


# ---- streams ---------------------------------------------------------------------------------------------


class Counting(IterableDataset):
    def __init__(self, end: int) -> None:
        self.end = end

    def __iter__(self):
        return iter(range(self.end))


class Sharded(IterableDataset):
    def __init__(self, numbers: Any = range(12)) -> None:
        self.numbers = numbers

    def shard(self, rank: int, total: int) -> "Sharded":
        return Sharded(list(self.numbers)[rank::total])

    def __iter__(self):
        return iter(self.numbers)


def rest(batches: Batches) -> list[list[int]]:
    read = []
    try:
        while len(read) < 1000:
            read.append(batch(batches, len(read)))
    except EndOfData:
        return read
    raise AssertionError("the stream never ended")


def test_a_stream_has_no_length_and_keeps_its_order():
    batches = Batches(Counting(7), 3, seed=1)
    assert batches.batches_per_epoch is None
    assert rest(batches) == [[0, 1, 2], [3, 4, 5], [6]]


def test_a_stream_that_ended_stays_ended():
    batches = Batches(Counting(2), 3, seed=1)
    rest(batches)
    for _ in range(3):
        with pytest.raises(EndOfData):
            batches.get(99)


def test_workers_on_one_stream_share_its_mini_batches_and_lose_none():
    shares = [rest(Batches(Counting(20), 3, seed=1, rank=rank, total=3)) for rank in range(3)]
    assert shares[1] == [[3, 4, 5], [12, 13, 14]]
    assert sorted(x for share in shares for part in share for x in part) == list(range(20))


def test_a_stream_that_shards_itself_is_read_whole():
    shares = [rest(Batches(Sharded(), 2, seed=1, rank=rank, total=3)) for rank in range(3)]
    assert shares[0] == [[0, 3], [6, 9]]
    assert sorted(x for share in shares for part in share for x in part) == list(range(12))


def test_a_stream_is_split_into_micro_batches_too():
    micro = Batches(Counting(7), 4, seed=1, micro_batches=2).get(0)
    assert contents(micro) == [[0, 1], [2, 3]]
