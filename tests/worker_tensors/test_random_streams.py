"""seed_everything: every random number is a pure function of (seed, stream)."""

import random
import subprocess
import sys

import numpy as np
import torch
from torch import nn

from backupsync_worker.tensors.seeding import preserved, seed_everything, stream_seed

DRAW = """
import random, numpy as np, torch
from torch import nn
from backupsync_worker.tensors.seeding import seed_everything
seed_everything(7, "compute", 12)
print(random.random(), np.random.rand(), torch.rand(1).item(), nn.functional.dropout(torch.ones(16)).tolist())
"""


def draws() -> tuple[object, ...]:
    dropped = nn.functional.dropout(torch.ones(16)).tolist()
    return (
        random.random(),
        np.random.rand(),
        torch.rand(1).item(),
        tuple(dropped),
        random.choice(range(10**9)),
    )


def seeded(*stream: str | int) -> tuple[object, ...]:
    seed_everything(*stream)
    return draws()


def test_the_same_seed_and_stream_give_the_same_numbers_from_every_generator():
    assert seeded(1, "compute", 5) == seeded(1, "compute", 5)


def test_another_seed_stream_or_ticket_changes_every_generator():
    base = seeded(1, "compute", 5)
    for other in (seeded(2, "compute", 5), seeded(1, "data", 5), seeded(1, "compute", 6)):
        assert all(a != b for a, b in zip(base, other, strict=True))


def test_streams_are_told_apart_by_their_parts_and_types():
    names = [("a", 1), ("a1",), ("a", "1"), ("a", 1, 0), (1, "a"), ()]
    assert len({stream_seed(3, *name) for name in names}) == len(names)


def test_seeds_are_non_negative_and_fit_63_bits():
    assert all(0 <= stream_seed(2**63 - 1, "x", ticket) < 2**63 for ticket in range(200))


def test_the_seed_of_a_stream_is_frozen_since_traces_are_replayed_by_it():
    assert stream_seed(1, "compute", 0) == 3234597225828969469


def test_another_process_draws_the_same_numbers():
    here = subprocess.run([sys.executable, "-c", DRAW], capture_output=True, text=True, check=True).stdout
    seed_everything(7, "compute", 12)
    dropped = nn.functional.dropout
    expected = (random.random(), np.random.rand(), torch.rand(1).item(), dropped(torch.ones(16)).tolist())
    assert here.strip() == " ".join(map(str, expected))


def test_torch_is_left_as_manual_seed_leaves_it():
    seed_everything(1, "x")
    state = torch.get_rng_state()
    torch.manual_seed(stream_seed(1, "x"))
    assert torch.equal(state, torch.get_rng_state())


def test_preserved_generators_go_on_as_if_nothing_had_been_drawn():
    expected = seeded(1, "compute", 5)
    seed_everything(1, "compute", 5)
    with preserved():
        seeded(9, "data", 1)
        with preserved():
            seeded(9, "data", 2)
    assert draws() == expected


def test_preserved_generators_survive_an_exception():
    expected = seeded(1, "compute", 5)
    seed_everything(1, "compute", 5)
    try:
        with preserved():
            seeded(9, "data", 1)
            raise KeyError  # noqa: TRY301
    except KeyError:
        pass
    assert draws() == expected


def test_the_body_of_preserved_draws_what_its_seed_says():
    expected = seeded(9, "data", 1)
    with preserved():
        assert seeded(9, "data", 1) == expected
