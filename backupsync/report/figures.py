"""Small figures over lists of numbers: quantiles, means, thinning."""

from collections.abc import Sequence
from itertools import groupby
from typing import TypeVar

from backupsync.report.model import Quantiles

T = TypeVar("T")


def quantile(ascending: Sequence[float], q: float) -> float:
    """Quantile q of a non-empty ascending sequence, linear between its two neighbours."""
    at = q * (len(ascending) - 1)
    low = int(at)
    high = min(low + 1, len(ascending) - 1)
    return ascending[low] + (ascending[high] - ascending[low]) * (at - low)


def mean(values: Sequence[float]) -> float | None:
    """Arithmetic mean, None of nothing."""
    return sum(values) / len(values) if values else None


def summary(values: Sequence[float]) -> Quantiles | None:
    """p50, p90, p99 and mean; None of nothing."""
    if not values:
        return None
    ascending = sorted(values)
    p50, p90, p99 = (quantile(ascending, q) for q in (0.5, 0.9, 0.99))
    return Quantiles(p50, p90, p99, sum(ascending) / len(ascending))


def percentiles(values: Sequence[float]) -> list[float]:
    """101 quantiles from 0 % to 100 %, none of nothing."""
    ascending = sorted(values)
    return [quantile(ascending, i / 100) for i in range(101)] if ascending else []


def groups(values: Sequence[T], most: int) -> list[list[T]]:
    """Split into at most `most` runs of neighbours, nearly equal in length."""
    parts = min(most, len(values))
    indexed = groupby(enumerate(values), key=lambda pair: pair[0] * parts // len(values))
    return [[value for _, value in group] for _, group in indexed]
