"""Figures as people read them."""

import statistics
from collections.abc import Iterable, Mapping

from backupsync.control import AggregatorStatus, MemberStatus

SLOW_RATIO = 1.5
"""A worker is marked slow when its median busy time exceeds the workers' median this many times."""


def seconds(value: float | None) -> str:
    """A short time: 840 µs, 82 ms, 1.24 s, 3:07."""
    if value is None:
        return "–"
    if value < 0.001:
        return f"{value * 1e6:.0f} µs"
    if value < 1:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.3g} s" if value < 60 else clock(value)


def clock(value: float) -> str:
    """A long time: 0:07, 3:07, 1:02:03."""
    minutes, rest = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def number(value: float | None) -> str:
    """Four significant digits."""
    return "–" if value is None else f"{value:.4g}"


def count(value: int | None) -> str:
    """A count with thousands apart."""
    return "–" if value is None else f"{value:,}"


def figures(values: Mapping[str, float]) -> str:
    """Named figures in one line."""
    return "  ".join(f"{name} {number(value)}" for name, value in sorted(values.items()))


def slowness(members: Iterable[MemberStatus]) -> dict[int, float]:
    """Return rank → busy time over the median of all, for the ranks that are slow."""
    busy = {m.rank: m.busy_p50_seconds for m in members if m.busy_p50_seconds and m.state == "Live"}
    if len(busy) < 2:
        return {}
    middle = statistics.median(busy.values())
    return {rank: value / middle for rank, value in busy.items() if value > SLOW_RATIO * middle}


def share_done(status: AggregatorStatus) -> float | None:
    """Return how much of the run is done, from 0 to 1; None when its end is not known."""
    if status.examples_total:
        return min(1.0, status.examples / status.examples_total)
    if status.iterations_total:
        return min(1.0, status.iteration / status.iterations_total)
    return None
