"""The share of the full tier that a commit's run takes."""

import hashlib
from collections import Counter

import pytest

from support.tiers import UNKNOWN_SECONDS, parse_shard

TESTS = [f"test_{n}.py::test" for n in range(30)]
SECONDS = {test: 10.0 + n for n, test in enumerate(TESTS)}


def shard(seed, seconds=200):
    return parse_shard(f"{seed}:{seconds}").of(TESTS, SECONDS)


def test_a_commit_always_takes_the_same_share():
    assert shard("a1b2") == shard("a1b2")
    assert parse_shard("a1b2:200").of(TESTS[::-1], SECONDS) == shard("a1b2")


@pytest.mark.parametrize("seconds", [0, 5, 60, 200, 100_000])
def test_a_share_fits(seconds):
    taken = shard("a1b2", seconds)
    assert sum(SECONDS[test] for test in taken) <= seconds
    assert (seconds < 100_000) == (len(taken) < len(TESTS))


def test_over_some_commits_every_test_is_taken():
    commits = [hashlib.sha1(str(n).encode()).hexdigest() for n in range(60)]
    times = Counter(test for commit in commits for test in shard(commit))
    assert set(times) == set(TESTS)


def test_an_unmeasured_test_is_taken_to_be_slow():
    assert parse_shard(f"a:{UNKNOWN_SECONDS - 1}").of(["new"], {}) == set()
    assert parse_shard(f"a:{UNKNOWN_SECONDS}").of(["new"], {}) == {"new"}


@pytest.mark.parametrize("text", ["", "840", "a:b"])
def test_nonsense_is_refused(text):
    with pytest.raises(ValueError):
        parse_shard(text)
