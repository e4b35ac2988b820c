"""How pods end and are cleaned up: last words, kept logs, cleanPodPolicy."""

from typing import Any

import pytest
from msgspec import structs

from backupsync.lifecycle import with_restart
from backupsync.lifecycle.types import ReplicaId


@pytest.fixture
def world(make_world) -> Any:
    made = make_world(workers=2, backups=1, backoffLimit=1)
    made.pods = True
    return made.up()


def history(world: Any, rank: int = 0) -> Any:
    return next(h for h in world.status.ranks if h.rank == rank)


# ---- ends


def test_a_pod_that_exited_starts_no_more_even_when_asked_to_restart(world, actions_of):
    world.exit(world.worker(0), 75)
    assert actions_of(world.look()) == ["Tell", "Start worker-0-2"]
    assert history(world).crashes_total == 1, "nobody had asked"


def test_a_restart_in_place_is_the_same_pod_and_counted_apart(world, actions_of):
    world.status = with_restart(world.status, 0, 0)
    assert actions_of(world.look()) == ["Tell"]
    world.replicas[world.worker(0)] = structs.replace(world.replicas[world.worker(0)], starts=1)
    world.look()
    assert world.worker(0).attempt == 1
    assert (history(world).restarts_total, history(world).crashes_total) == (1, 0)
    assert world.status.restarts == ()


def test_the_end_of_a_job_that_nobody_watched_is_read_from_the_aggregators_last_words(world):
    world.finish("Succeeded", "Completed", "400 iterations")
    world.dismiss()
    world.exit(world.epoch, 0)
    world.look()
    assert world.status.phase == "Succeeded"
    assert "400 iterations" in world.condition("Succeeded").message
    assert world.status.aggregator_attempt == 1
    assert len(world.status.progress.members) == 3, "who was there is remembered from before"


def test_a_failure_that_nobody_watched_likewise(world):
    world.finish("Failed", "Diverged", "ten gradients in a row were not finite")
    world.exit(world.epoch, 1)
    world.look()
    assert world.condition("Failed").reason == "Diverged"


def test_last_words_of_an_earlier_epoch_end_nothing(world):
    world.finish("Succeeded")
    world.exit(world.epoch, 0)
    old = world.replicas[world.epoch]
    world.status = structs.replace(world.status, aggregator_attempt=2, aggregator_seen=False)
    world.replicas[old.id] = old
    world.look()
    assert world.status.phase == "Running"


def test_of_every_rank_the_newest_ended_pod_is_kept_for_its_log(make_world):
    world = make_world(workers=1, backups=0, backoffLimit=9)
    world.pods = True
    world.up()
    for _ in range(5):
        world.exit(world.worker(0), 1)
        world.look()
        world.now += 100
        world.look()
        world.boot()
    world.look()
    ended = [id_.attempt for id_, r in world.replicas.items() if r.phase == "Exited"]
    assert ended == [world.worker(0).attempt - 1]


def test_a_replaced_pod_that_only_its_sidecars_keep_is_deleted(world, actions_of):
    world.exit(world.worker(0), 1)
    world.replicas[world.worker(0)] = structs.replace(world.replicas[world.worker(0)], lingers=True)
    assert "Stop worker-0-1" in actions_of(world.look())


# ---- cleaning up


def ended(make_world, policy: str, **more: Any) -> Any:
    world = make_world(workers=1, backups=1, cleanPodPolicy=policy, **more)
    world.pods = True
    world.up()
    world.finish("Succeeded")
    world.look()
    return world


def test_clean_pod_policy_running_leaves_ended_pods_and_deletes_the_rest(make_world):
    world = ended(make_world, "Running")
    world.exit(ReplicaId("worker", 0, 1), 0)
    lingering = ReplicaId("worker", 1, 1)
    world.exit(lingering, 0)
    world.replicas[lingering] = structs.replace(world.replicas[lingering], lingers=True)
    world.exit(world.epoch, 0)
    world.look()
    assert sorted(id_.role for id_ in world.replicas) == ["aggregator", "worker"]
    assert lingering not in world.replicas


def test_a_pod_that_never_started_is_not_waited_for_at_the_end(make_world, actions_of):
    world = make_world(workers=1, backups=1)
    world.pods = True
    world.stuck = {("worker", 1): ("Unschedulable", "0/2 nodes are available")}
    for _ in range(2):
        world.look()
        world.boot()
        world.train()
    world.finish("Succeeded")
    assert actions_of(world.look()) == ["Stop worker-1-1"]


def test_clean_pod_policy_none_leaves_even_sidecars(make_world):
    world = ended(make_world, "None")
    world.exit(world.epoch, 0)
    world.replicas[world.epoch] = structs.replace(world.replicas[world.epoch], lingers=True)
    world.now += 1000
    world.look()
    assert len(world.replicas) == 3


def test_clean_pod_policy_all_deletes_every_pod(make_world):
    world = ended(make_world, "All")
    world.settle()
    world.look()
    assert world.replicas == {}


def test_a_job_that_leaves_pods_alone_is_still_deleted_in_time_with_all_of_them(make_world):
    world = ended(make_world, "None", ttlSecondsAfterFinished=60)
    world.now += 61
    world.look()
    assert world.deleted


def test_a_pod_stuck_on_a_lost_node_does_not_keep_a_finished_job(make_world):
    world = ended(make_world, "Running", ttlSecondsAfterFinished=60)
    world.exit(world.epoch, 0)
    world.silence_node(ReplicaId("worker", 0, 1), lost=True)
    for _ in range(8):
        world.look()
        world.reap()
        world.now += 20
    assert world.deleted
