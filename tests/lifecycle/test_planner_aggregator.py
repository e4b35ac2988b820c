"""The aggregator's life: epochs, backoff, and no silent return to iteration 0."""

import pytest
from msgspec import structs

from backupsync.lifecycle.types import ReplicaId, Stop


def test_a_crashed_aggregator_comes_back_under_the_next_epoch_and_no_worker_is_restarted(
    make_world, actions_of
):
    world = make_world().up()
    world.exit(world.epoch, 137)
    made = world.look()
    assert actions_of(made) == ["Start aggregator-2"]
    assert made.status.aggregator_crashes == 1
    assert made.status.phase == "Running"
    assert world.condition("Ready").status == "False"
    world.boot()
    world.train()
    world.look()
    assert world.condition("Ready").status == "True"
    assert world.status.aggregator_crashes == 0, "progress forgives"


def test_crashes_are_forgiven_only_for_progress_beyond_the_last_crash(make_world):
    world = make_world().up()
    world.exit(world.epoch, 1)
    world.saved = 2
    world.look()
    world.boot()
    assert world.aggregator.iteration == 2, "it went back to a checkpoint"
    world.train(3)
    world.look()
    assert world.status.aggregator_crashes == 1, "5 was reached before"
    world.train(1)
    world.look()
    assert world.status.aggregator_crashes == 0


def test_an_aggregator_that_keeps_crashing_waits_longer_and_then_fails_the_job(make_world):
    world = make_world(backoffLimit=2).up()
    pauses = []
    for _ in range(3):
        world.exit(world.epoch, 1, "no room left")
        made = world.look()
        pauses.append(made.requeue_after)
        world.now += made.requeue_after or 0
        world.look()
        world.boot()
    assert pauses[:2] == [None, 0.5]
    assert world.status.phase == "Failed"
    assert world.condition("Failed").reason == "AggregatorBackoffLimitExceeded"
    assert "no room left" in world.condition("Failed").message


def test_an_aggregator_that_cannot_go_on_fails_the_job_at_once(make_world):
    world = make_world().up()
    world.exit(world.epoch, 73, "checkpoint directory out/digits: Permission denied")
    world.look()
    assert world.status.phase == "Failed"
    assert world.condition("Failed").reason == "CannotWrite"
    assert "Permission denied" in world.condition("Failed").message


def test_without_a_checkpoint_training_is_not_begun_anew_in_silence(make_world):
    world = make_world(checkpoint=False).up()
    world.exit(world.epoch, 1)
    made = world.look()
    assert made.status.phase == "Failed"
    assert world.condition("Failed").reason == "NoCheckpoint"
    assert "set spec.checkpoint.path" in world.condition("Failed").message


def test_without_a_checkpoint_an_aggregator_that_had_not_begun_comes_back(make_world, actions_of):
    world = make_world(checkpoint=False)
    world.look()
    world.boot()
    world.look()
    world.exit(world.epoch, 1)
    assert actions_of(world.look()) == ["Start aggregator-2"]
    assert world.announced()[-1] == "AggregatorReplaced"


def test_a_volume_keeps_checkpoints_as_a_path_does(make_world, actions_of):
    world = make_world(checkpoint=False).up()
    world.checkpoint = {"volumeClaimTemplate": {"spec": {}}}
    world.exit(world.epoch, 1)
    assert actions_of(world.look()) == ["Start aggregator-2"]


def test_an_aggregator_that_found_a_newer_epoch_takes_a_later_one_and_is_counted(make_world, actions_of):
    world = make_world().up()
    world.exit(world.epoch, 76)
    assert actions_of(world.look()) == ["Start aggregator-2"]
    assert world.status.aggregator_crashes == 1


@pytest.mark.parametrize("how", ["vanished", "exited with 0"])
def test_an_aggregator_that_was_sent_away_from_outside_comes_back_without_blame(make_world, actions_of, how):
    world = make_world(backoffLimit=0).up()
    old = world.epoch
    if how == "vanished":
        world.vanish(old)
    else:
        world.exit(old, 0)
    assert actions_of(world.look()) == ["Start aggregator-2"]
    assert (world.status.aggregator_crashes, world.status.aggregator_losses) == (0, 1)


def test_an_engine_that_died_with_all_its_processes_goes_on_under_a_new_epoch(make_world, actions_of):
    world = make_world(workers=1, backups=1, backoffLimit=0).up()
    for id_ in world.alive():
        world.vanish(id_)
    world.now += 86400
    made = world.look()
    assert actions_of(made) == ["Start aggregator-2", "Start worker-0-2", "Start worker-1-2"]
    assert made.status.active_seconds == 0.0, "nothing ran meanwhile"


def test_a_silent_aggregator_may_come_back(make_world, actions_of):
    world = make_world().up()
    world.silent = True
    made = world.look()
    assert actions_of(made) == []
    assert made.requeue_after == 30.0
    world.silent = False
    world.look()
    assert world.status.aggregator_silent_since is None


def test_an_aggregator_that_hangs_is_ended_and_its_successor_waits_for_its_address(make_world, actions_of):
    world = make_world().up()
    world.silent = True
    world.look()
    world.now += 30
    made = world.look()
    assert actions_of(made) == ["Stop aggregator-1"]
    assert [a.grace_seconds for a in made.actions if isinstance(a, Stop)] == [0.0]
    assert "aggregator (epoch 2) waits for the one before it to end: they would share an address" in (
        made.explanation
    )
    world.reap()
    assert actions_of(world.look()) == ["Start aggregator-2"]


def test_a_pod_has_its_own_address_so_the_next_epoch_starts_beside_a_lost_one(make_world, actions_of):
    world = make_world()
    world.pods = True
    world.up()
    world.silent = True
    world.look()
    world.now += 30
    assert actions_of(world.look()) == ["Stop aggregator-1", "Start aggregator-2"]


def test_a_hanging_aggregator_without_a_checkpoint_is_not_ended(make_world, actions_of):
    world = make_world(checkpoint=False).up()
    world.silent = True
    world.look()
    world.now += 300
    made = world.look()
    assert actions_of(made) == []
    assert any("would lose all" in line for line in made.explanation)


def test_an_aggregator_still_starting_is_not_taken_to_hang(make_world, actions_of):
    world = make_world()
    world.look()
    world.replicas[world.epoch] = structs.replace(world.replicas[world.epoch], phase="Running")
    world.now += 3600
    assert actions_of(world.look()) == []


def test_an_aggregator_of_an_earlier_epoch_is_stopped(make_world, actions_of):
    world = make_world().up()
    world.pods = True
    world.status = structs.replace(world.status, aggregator_attempt=2, aggregator_seen=False)
    assert actions_of(world.look()) == ["Stop aggregator-1", "Start aggregator-2"]
    assert world.replicas[ReplicaId("aggregator", 0, 1)].stopping
