"""Random numbers that are a pure function of what they are for: no stream, no order of calls.

Every draw hashes (seed, rule, what it is drawn for) to a uniform number, and the distributions invert their
own CDF at it. So a profile slows the same rank in the same iteration alike in every run and in replay,
whatever was dropped, abandoned or restarted in between.
"""

import hashlib
import math
import random
from statistics import NormalDist
from typing import Final

_STANDARD: Final = NormalDist()


def digest(seed: int, *what: int | str) -> int:
    """Return 64 bits that depend on the seed and on all of `what`."""
    said = "/".join(map(str, (seed, *what))).encode()
    return int.from_bytes(hashlib.blake2b(said, digest_size=8, person=b"backupsync-inj").digest(), "big")


def uniform(seed: int, *what: int | str) -> float:
    """Return a number strictly between 0 and 1."""
    return ((digest(seed, *what) >> 12) + 0.5) * 2.0**-52


def normal(u: float, mean: float, deviation: float) -> float:
    """Quantile of the normal distribution at u."""
    return mean + deviation * _STANDARD.inv_cdf(u)


def lognormal(u: float, sigma: float) -> float:
    """Quantile at u of the lognormal distribution with median 1."""
    return math.exp(normal(u, 0.0, sigma))


def gumbel(u: float, loc: float, scale: float) -> float:
    """Quantile at u of the Gumbel distribution (of maxima)."""
    return loc - scale * math.log(-math.log(u))


def exponential(u: float, mean: float) -> float:
    """Quantile at u of the exponential distribution."""
    return -mean * math.log1p(-u)


def pareto(u: float, alpha: float) -> float:
    """Quantile at u of the Pareto distribution with minimum 1."""
    return float((1.0 - u) ** (-1.0 / alpha))


def beta(alpha: float, beta_: float, seed: int, *what: int | str) -> float:
    """Return a Beta(alpha, beta) number: two gamma draws from a generator seeded by what it is for."""
    return random.Random(digest(seed, *what)).betavariate(alpha, beta_)
