"""What one worker feels: which rules apply, how they add up, how the time is spent."""

import pytest

from backupsync.inject import Injector, Place, ProfileError, ideal_seconds, local_node, parse_profile

PERSISTENT = "stepSeconds: 0.1\nrules: [{{kind: Persistent, factor: 3, {binding}}}]"


def slow(binding: str, rank: int = 1, attempt: int = 1, node: str = "a", iteration: int = 0) -> bool:
    profile = parse_profile(PERSISTENT.format(binding=binding))
    return Injector(profile, rank, attempt, node).step(iteration, 0).factor == 3


def test_without_a_profile_every_step_takes_its_own_time():
    step = Injector(None, 0, 1, "a").step(0, 0)
    assert (step.seconds, step.factor, step.kill, step.hog) == (None, 1.0, False, False)
    assert step.due(0.25) == 0.25


def test_a_rule_bound_to_ranks_leaves_the_others_alone():
    assert slow("ranks: [1, 2]")
    assert not slow("ranks: [1, 2]", rank=0)


def test_a_rule_bound_to_an_attempt_leaves_its_successor_alone():
    assert slow("ranks: [1], attempts: [1]")
    assert not slow("ranks: [1], attempts: [1]", attempt=2)


def test_a_rule_bound_to_a_node_strikes_whoever_stands_there():
    assert slow("nodes: [a]") and slow("nodes: ['*']", node="b")
    assert not slow("nodes: [a]", node="b")


def test_a_rule_lasts_from_its_first_iteration_for_its_iterations():
    window = "firstIteration: 10, iterations: 5"
    assert [i for i in range(30) if slow(window, iteration=i)] == list(range(10, 15))
    assert [i for i in range(30) if slow("firstIteration: 28", iteration=i)] == [28, 29]


def test_factors_multiply_and_seconds_add():
    profile = parse_profile("""
    stepSeconds: 0.1
    rules:
      - {kind: Persistent, factor: 2}
      - {kind: Persistent, factor: 3}
      - {kind: Pause, every: 1, minimumSeconds: 0.5, maximumSeconds: 0.5}
    """)
    step = Injector(profile, 0, 1, "a").step(0, 0)
    assert step.factor == 6
    assert step.seconds == pytest.approx(0.1 * 6 + 0.5)
    assert step.due(0.2) == step.seconds
    assert step.due(5.0) == 5.0, "a real computation that takes longer is not cut short"


def test_without_a_step_time_the_real_computation_is_stretched():
    profile = parse_profile("""
    rules:
      - {kind: Persistent, factor: 2}
      - {kind: Pause, every: 1, minimumSeconds: 0.5, maximumSeconds: 0.5}
    """)
    step = Injector(profile, 0, 1, "a").step(0, 0)
    assert step.seconds is None
    assert step.due(0.3) == pytest.approx(0.3 * 2 + 0.5)


def test_a_draw_that_would_make_time_run_backwards_takes_none():
    profile = parse_profile("stepSeconds: 0.1\nrules: [{kind: Normal, deviation: 50}]")
    injector = Injector(profile, 0, 1, "a")
    assert min(injector.step(i, 0).seconds or 0.0 for i in range(100)) == 0.0


def test_a_cpu_profile_asks_for_a_hog():
    assert Injector(parse_profile("resource: Cpu"), 0, 1, "a").step(0, 0).hog
    assert not Injector(parse_profile("resource: Sleep"), 0, 1, "a").step(0, 0).hog


def test_the_attempt_changes_no_draw_so_that_replay_and_replacement_feel_the_same_weather():
    profile = parse_profile("stepSeconds: 0.1\nrules: [{kind: Gumbel, loc: 1, scale: 0.1}]")
    one, two = (Injector(profile, 3, attempt, node) for attempt, node in ((1, "a"), (2, "b")))
    assert [one.step(i, 0) for i in range(20)] == [two.step(i, 9) for i in range(20)]


def test_two_rules_of_one_kind_draw_independently_and_so_do_two_seeds():
    rule = "{kind: LogNormal, sigma: 0.5}"

    def factors(text: str) -> list[float]:
        return [Injector(parse_profile(text), 0, 1, "a").step(i, 0).factor for i in range(5)]

    once, twice = factors(f"rules: [{rule}]"), factors(f"rules: [{rule}, {rule}]")
    assert all(b != pytest.approx(a * a) for a, b in zip(once, twice, strict=True))
    assert factors(f"{{seed: 1, rules: [{rule}]}}") != once


@pytest.mark.parametrize("kind", ["Exponential, mean: 0.2", "Pareto, alpha: 3"])
def test_heavy_tails_never_make_a_step_faster(kind):
    profile = parse_profile(f"stepSeconds: 0.1\nrules: [{{kind: {kind}}}]")
    injector = Injector(profile, 0, 1, "a")
    assert min(injector.step(i, 0).factor for i in range(300)) >= 1


def test_a_common_cause_strikes_every_rank_in_the_same_iterations():
    rule = "{kind: Sometimes, probability: 0.2, factor: 4, drawnBy: Iteration}"
    profile = parse_profile(f"stepSeconds: 0.1\nrules: [{rule}]")
    struck = [
        [i for i in range(200) if Injector(profile, r, 1, "a").step(i, r).factor == 4] for r in range(3)
    ]
    assert struck[0] == struck[1] == struck[2]
    assert 20 < len(struck[0]) < 60


def test_what_is_no_profile_is_refused_in_the_launch_too():
    with pytest.raises(ProfileError, match="stepSeconds"):
        Injector({"stepSeconds": -1}, 0, 1, "a")


def test_the_ideal_is_the_nth_fastest_of_all_workers():
    profile = parse_profile("stepSeconds: 0.1\nrules: [{kind: Persistent, factor: 5, ranks: [0, 1]}]")
    assert ideal_seconds(profile, range(3), range(6), 4) == [0.1] * 3
    assert ideal_seconds(profile, range(3), range(6), 5) == [0.5] * 3
    replaced = ideal_seconds(
        profile.model_copy(update={"rules": []}), [0], lambda _: [Place(0), Place(1, 2)], lambda _: 2
    )
    assert replaced == [0.1]


@pytest.mark.parametrize("text", ["rules: [{kind: Persistent, factor: 2}]", "seed: 1"])
def test_without_absolute_times_there_is_no_ideal(text):
    assert ideal_seconds(parse_profile(text), range(3), range(6), 4) is None
    assert ideal_seconds(None, range(3), range(6), 4) is None


def test_more_required_than_there_are_ranks_has_no_ideal():
    assert ideal_seconds(parse_profile("stepSeconds: 1"), range(3), range(3), 4) is None


def test_every_attempt_of_a_local_run_stands_on_a_node_of_its_own():
    places = [(rank, attempt) for rank in range(20) for attempt in range(1, 20)]
    assert len({local_node(*place) for place in places}) == len(places)
    assert local_node(3, 1) == "node-3", "the name that a profile's `nodes` is written for"
