"""Draws are pure functions, and follow the distributions they are named after."""

import math
import random
from statistics import NormalDist, fmean, median, stdev

import pytest

from backupsync.inject import draws

N = 4000
ALMOST_SURE = 1.95
"""Kolmogorov-Smirnov bound at 0.1 % on D × sqrt(n); the seeds are fixed, so a pass stays a pass."""


def sample(quantile, *parameters):
    return [quantile(draws.uniform(7, "x", i), *parameters) for i in range(N)]


def kolmogorov_smirnov(values, cdf):
    ordered = sorted(values)
    gaps = (max(cdf(v) - i / N, (i + 1) / N - cdf(v)) for i, v in enumerate(ordered))
    return max(gaps) * math.sqrt(N)


@pytest.mark.parametrize(
    ("values", "cdf"),
    [
        (sample(lambda u: u), lambda v: v),
        (sample(draws.normal, 1.0, 0.005), NormalDist(1.0, 0.005).cdf),
        (sample(draws.lognormal, 0.3), lambda v: NormalDist(0, 0.3).cdf(math.log(v))),
        (sample(draws.gumbel, 0.954, 0.1115), lambda v: math.exp(-math.exp(-(v - 0.954) / 0.1115))),
        (sample(draws.exponential, 0.2), lambda v: 1 - math.exp(-v / 0.2)),
        (sample(draws.pareto, 1.5), lambda v: 1 - v**-1.5),
    ],
    ids=["uniform", "normal", "lognormal", "gumbel", "exponential", "pareto"],
)
def test_a_draw_follows_its_distribution(values, cdf):
    assert kolmogorov_smirnov(values, cdf) < ALMOST_SURE


def test_beta_has_the_mean_and_deviation_of_its_parameters():
    values = [draws.beta(3.10, 209.5, 7, i) for i in range(N)]
    mean = 3.10 / 212.6
    deviation = math.sqrt(mean * (1 - mean) / 213.6)
    assert fmean(values) == pytest.approx(mean, rel=0.05)
    assert stdev(values) == pytest.approx(deviation, rel=0.05)


def test_a_draw_does_not_depend_on_what_was_drawn_before():
    keys = [(rank, iteration) for rank in range(6) for iteration in range(50)]
    in_order = {key: draws.uniform(3, *key) for key in keys}
    random.Random(0).shuffle(keys)
    assert {key: draws.uniform(3, *key) for key in keys} == in_order


def test_draws_of_neighbouring_ranks_iterations_and_seeds_are_uncorrelated():
    base = [draws.uniform(1, 0, i) - 0.5 for i in range(N)]
    others = ([draws.uniform(2, 0, i) for i in range(N)], [draws.uniform(1, 1, i) for i in range(N)])
    for other in (*others, [draws.uniform(1, 0, i + 1) for i in range(N)]):
        correlation = 12 * fmean(a * (b - 0.5) for a, b in zip(base, other, strict=True))
        assert abs(correlation) < 4 / math.sqrt(N)


def test_a_uniform_draw_is_never_zero_or_one_so_that_no_quantile_is_infinite(monkeypatch):
    for bits in (0, 2**64 - 1):
        monkeypatch.setattr(draws, "digest", lambda *_, bits=bits: bits)
        assert all(
            math.isfinite(value)
            for u in [draws.uniform(0)]
            for value in (draws.normal(u, 0, 1), draws.gumbel(u, 0, 1), draws.exponential(u, 1))
        )


def test_the_draws_are_frozen_so_that_a_seed_means_the_same_in_every_version():
    assert draws.digest(7, "step", 5, 0, "") == FROZEN_DIGEST
    assert draws.uniform(7, "step", 5, 0, "") == pytest.approx(FROZEN_UNIFORM, abs=1e-15)
    assert median(sample(draws.gumbel, 0.954, 0.1115)) == pytest.approx(0.954 + 0.1115 * 0.3665, abs=0.01)


FROZEN_DIGEST = 2582499571970170985
FROZEN_UNIFORM = 0.13999758231864734
