"""Which tests of the full tier a run takes on top of the default ones: a shard chosen by the commit. Pure."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

UNKNOWN_SECONDS = 90.0
"""What a test without a measured duration is taken to last."""


class Shard(NamedTuple):
    """A part of the full tier: the same for the same seed, another one for another."""

    seed: str
    """The commit's hash."""
    seconds: float
    """How long it may last, by what was measured before."""

    def of(self, tests: Sequence[str], durations: Mapping[str, float]) -> set[str]:
        """Return the ids of the tests to run: taken in the seed's order, as long as they fit."""
        chosen, left = set(), self.seconds
        for test in sorted(tests, key=self._place):
            needs = durations.get(test, UNKNOWN_SECONDS)
            if needs <= left:
                chosen.add(test)
                left -= needs
        return chosen

    def _place(self, test: str) -> str:
        return hashlib.sha256(f"{self.seed} {test}".encode()).hexdigest()


def parse_shard(text: str) -> Shard:
    """Read `SEED:SECONDS`. Raises ValueError."""
    seed, _, seconds = text.rpartition(":")
    if not seed:
        raise ValueError(f"--shard {text!r}: must be SEED:SECONDS, such as a commit's hash and 840")
    return Shard(seed, float(seconds))
