"""The profiles of examples/profiles do what their comments say, measured on the steps they inject."""

from itertools import pairwise
from pathlib import Path
from statistics import fmean, median

import pytest

from backupsync.inject import Injector, Place, Profile, ideal_step_seconds, load_profile

PROFILES = Path(__file__).parents[2] / "examples" / "profiles"
T0 = 0.1


def load(name: str) -> Profile:
    return load_profile(PROFILES / f"{name}.yaml")


def seconds(profile: Profile, rank: int, iterations: range, attempt: int = 1) -> list[float]:
    injector = Injector(profile, rank, attempt, "node")
    steps = [injector.step(iteration, iteration * 100 + rank).seconds for iteration in iterations]
    return [s for s in steps if s is not None]


@pytest.mark.parametrize("path", sorted(PROFILES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_committed_profile_loads_and_survives_the_way_to_a_worker(path):
    profile = load_profile(path)
    assert profile.resource == "Sleep"
    there = Injector(profile.dump(), 1, 1, "node")
    here = Injector(profile, 1, 1, "node")
    assert [there.step(i, i) for i in range(200)] == [here.step(i, i) for i in range(200)]


def test_a_the_healthy_step_stays_within_two_percent():
    taken = seconds(load("healthy"), 0, range(2000))
    assert max(abs(s / T0 - 1) for s in taken) < 0.025
    assert fmean(taken) == pytest.approx(T0, rel=0.001)


def test_b_the_google_tail_meets_the_papers_two_figures():
    profile = load("google-tail")
    places = [Place(rank) for rank in range(100)]
    slow = 1.379 * T0
    counts = [0, 0]
    for iteration in range(500):
        asked = ideal_step_seconds(profile, iteration, places)
        counts[0] += asked[97] < slow
        counts[1] += asked[99] < slow
    assert counts[0] / 500 == pytest.approx(0.80, abs=0.06)
    assert counts[1] / 500 == pytest.approx(0.30, abs=0.06)


def test_c_gumbel_has_the_order_statistics_of_the_trace():
    profile = load("gumbel")
    places = [Place(rank) for rank in range(32)]
    asked = [ideal_step_seconds(profile, iteration, places) for iteration in range(500)]
    means = [fmean(a[k - 1] for a in asked) / T0 for k in (28, 30, 32)]
    assert means == pytest.approx([1.175, 1.233, 1.409], rel=0.04)


def test_d_the_persistent_straggler_is_slow_in_every_step_and_its_replacement_is_not():
    profile = load("persistent")
    assert min(seconds(profile, 1, range(300))) > 2.3 * T0
    assert max(seconds(profile, 1, range(300), attempt=2)) < 1.03 * T0
    assert max(seconds(profile, 0, range(300))) < 1.03 * T0


def test_e_the_slightly_slow_worker_takes_a_tenth_longer():
    assert fmean(seconds(load("slightly-slow"), 1, range(500))) == pytest.approx(1.1 * T0, rel=0.002)


def test_f_garbage_collections_come_about_every_500_steps_and_not_together():
    profile = load("gc-pause")
    pauses = [
        {i: s - T0 for i, s in enumerate(seconds(profile, rank, range(20_000))) if s > 1.5 * T0}
        for rank in (0, 1)
    ]
    for found in pauses:
        assert 25 < len(found) < 60
        assert all(0.09 < extra < 0.51 for extra in found.values())
        assert (
            min(b - a for a, b in pairwise(sorted(found)))
            < 400
            < max(b - a for a, b in pairwise(sorted(found)))
        )
    assert not pauses[0].keys() & pauses[1].keys()


def test_g_the_episode_begins_ends_and_spares_the_others():
    slow = [i for i, s in enumerate(seconds(load("fail-slow"), 1, range(600))) if s > 1.5 * T0]
    assert slow == list(range(100, 400))
    assert max(seconds(load("fail-slow"), 2, range(600))) < 1.03 * T0


def test_h_the_kill_strikes_one_attempt_once_even_if_it_skipped_the_iteration():
    profile = load("kill")
    assert not Injector(profile, 1, 1, "n").step(49, 0).kill
    assert Injector(profile, 1, 1, "n").step(50, 0).kill
    assert Injector(profile, 1, 1, "n").step(53, 0).kill
    assert not Injector(profile, 1, 2, "n").step(53, 0).kill, "the replacement lives"
    assert not Injector(profile, 1, 1, "n", start=1).step(53, 0).kill, "so does a restart in place"
    assert not Injector(profile, 0, 1, "n").step(50, 0).kill


def test_i_data_correlated_slowness_belongs_to_the_ticket_whoever_computes_it():
    profile = load("data-correlated")
    one, other = Injector(profile, 0, 1, "n"), Injector(profile, 3, 2, "m")
    times = [one.step(1, ticket).seconds for ticket in range(1000)]
    assert times == [other.step(8, ticket).seconds for ticket in range(1000)]
    assert len(set(times)) > 990


def test_j_one_straggler_more_than_backups_slows_every_iteration():
    profile = load("beyond-backups")
    places = [Place(rank) for rank in range(6)]
    fourth = [ideal_step_seconds(profile, iteration, places)[3] for iteration in range(50)]
    assert min(fourth) > 2.2 * T0


def test_the_recording_begins_again_and_unknown_ranks_keep_their_own_pace():
    profile = load("recorded")
    known = Injector(profile, 3, 1, "n")
    assert known.step(0, 0).seconds == known.step(40, 0).seconds != known.step(1, 0).seconds
    assert Injector(profile, 6, 1, "n").step(0, 0).seconds is None


def test_the_median_step_of_every_profile_but_the_recorded_one_is_near_the_step_time():
    for path in PROFILES.glob("*.yaml"):
        if path.stem not in ("recorded",):
            assert median(seconds(load_profile(path), 5, range(500))) == pytest.approx(T0, rel=0.05)
