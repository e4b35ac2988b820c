"""Which peers that an aggregator turned away people are told of: a stranger must fill no event list. Pure.

What a stranger calls itself is its own choice, so the codes, of which there are few, bound what is told.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from backupsync.control import Refusal

QUIET_SECONDS: Final = 600.0
"""Shortest time between two words on refusals of one code."""


class Told(NamedTuple):
    """The last word on refusals of one code."""

    at: float
    known: frozenset[tuple[str, int]]
    """Peers and counts at that time."""


def news(
    refusals: Iterable[Refusal], told: Mapping[str, Told], now: float
) -> tuple[list[str], dict[str, Told]]:
    """Return what to say at `now` (seconds), one message per code, and what has been told from then on."""
    by_code: dict[str, list[Refusal]] = {}
    for refusal in refusals:
        by_code.setdefault(refusal.code, []).append(refusal)
    said, after = [], dict(told)
    for code, found in by_code.items():
        known = frozenset((refusal.peer, refusal.count) for refusal in found)
        before = told.get(code)
        if before is not None and (known <= before.known or now < before.at + QUIET_SECONDS):
            continue
        after[code] = Told(now, known)
        said.append(_words(code, found))
    return said, after


def _words(code: str, found: list[Refusal]) -> str:
    newest = found[-1]
    others = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return f"the aggregator turned away {newest.peer}{others}: {code}: {newest.detail}"
