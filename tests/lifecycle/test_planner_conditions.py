"""Conditions by the API conventions, and what is worth writing down."""

from msgspec import structs

from backupsync.lifecycle import worth_writing
from backupsync.lifecycle.types import Announce

TYPES = ["Accepted", "Ready", "Suspended", "Succeeded", "Failed"]


def test_every_condition_is_there_from_the_first_plan_on(make_world):
    status = make_world().look().status
    assert [c.type for c in status.conditions] == TYPES
    assert [c.status for c in status.conditions] == ["True", "False", "False", "False", "False"]
    assert all(c.reason for c in status.conditions)


def test_ready_says_what_it_waits_for(make_world):
    world = make_world(workers=2, backups=1)
    world.look()
    assert world.condition("Ready").reason == "AggregatorNotReady"
    world.boot()
    world.look()
    assert world.condition("Ready").reason == "Joining"
    world.train()
    world.look()
    assert world.condition("Ready").status == "True"
    for rank in (0, 1):
        world.freeze(world.worker(rank))
    world.look()
    assert world.condition("Ready").reason == "BelowQuorum"
    assert world.condition("Ready").message == "1 workers are live, 2 gradients make an iteration"


def test_the_transition_time_moves_only_when_the_status_flips(make_world):
    world = make_world()
    world.look()
    first = world.condition("Ready").last_transition_time
    world.now += 10
    world.boot()
    world.look()
    assert world.condition("Ready").reason == "Joining"
    assert world.condition("Ready").last_transition_time == first
    world.now += 10
    world.train()
    world.look()
    assert world.condition("Ready").last_transition_time == world.now


def test_the_job_runs_once_its_aggregator_trains(make_world):
    world = make_world()
    world.look()
    world.boot()
    assert world.look().status.phase == "Pending"
    world.train()
    assert world.look().status.phase == "Running"
    assert world.announced() == ["Running"]


def test_an_evaluation_that_fails_is_announced_once_however_often_it_fails_in_the_same_way(make_world):
    world = make_world().up()
    before = len(world.announced())
    wrong, raised = "evaluate(): gave a float", "Traceback\n  x\nKeyError: 'y'\n"
    for problem in (wrong, wrong, "", raised):
        world.aggregator.evaluation_problem = problem
        world.look()
    said = [a.message for a in world.log if isinstance(a, Announce)][before:]
    assert said == [
        "the newest evaluation has no result: evaluate(): gave a float",
        "the newest evaluation has no result: KeyError: 'y'; the traceback is in the log of its worker",
    ]


def test_clocks_and_figures_alone_are_not_worth_a_write(make_world):
    world = make_world().up()
    before = world.status
    world.now += 5
    world.train()
    world.look()
    counters = structs.replace(world.status, ranks=before.ranks)
    assert not worth_writing(before, counters)
    world.aggregation = {"workers": 1, "backupWorkers": 0}
    assert worth_writing(before, world.look().status)
