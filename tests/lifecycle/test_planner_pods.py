"""Pods: evicted, deleted, on lost nodes; what is replaced, when, and whose fault it was."""

from typing import Any

import pytest
from msgspec import structs

from backupsync.lifecycle.types import JobStatus, ReplicaId, Stop


@pytest.fixture
def world(make_world) -> Any:
    made = make_world(workers=2, backups=1, backoffLimit=1)
    made.pods = True
    return made.up()


def history(world: Any, rank: int = 0) -> Any:
    return next(h for h in world.status.ranks if h.rank == rank)


# ---- ended from outside


@pytest.mark.parametrize("how", ["delete", "evict"])
def test_a_worker_being_ended_from_outside_is_replaced_at_once(world, actions_of, how):
    getattr(world, how)(world.worker(0))
    made = world.look()
    assert actions_of(made) == ["Tell", "Start worker-0-2"], (
        "its successor need not wait for its grace period"
    )
    world.boot()
    world.train()
    world.look()
    assert world.status.phase == "Running"
    assert history(world).crashes_total == 0
    assert (history(world).losses_total, history(world).evictions) == ((1, 0) if how == "delete" else (0, 1))


def test_an_eviction_seen_only_once_it_is_over_counts_as_one(world, actions_of):
    world.evict(world.worker(0))
    world.exit(world.worker(0), 143)
    assert actions_of(world.look()) == ["Tell", "Start worker-0-2"]
    assert (history(world).evictions, history(world).crashes) == (1, 0)


def test_a_pod_that_vanished_is_a_loss(world):
    world.vanish(world.worker(0))
    world.look()
    assert (history(world).losses_total, history(world).evictions, history(world).crashes) == (1, 0, 0)


def test_evictions_never_fail_a_job_yet_slow_its_restarts_down(world):
    for _ in range(12):
        world.evict(world.worker(0))
        world.look()
        world.now += 100
        world.look()
        world.boot()
        world.reap()
    assert world.status.phase == "Running"
    assert history(world).evictions == 12
    assert history(world).crashes_total == 0
    assert history(world).retry_at - world.now > -100 + 50


def test_an_aggregator_being_ended_from_outside_may_write_its_checkpoint_first(world, actions_of):
    world.evict(world.epoch)
    assert actions_of(world.look()) == []
    world.exit(world.epoch, 143)
    assert actions_of(world.look()) == ["Start aggregator-2"]
    assert world.status.aggregator_evictions == 1
    assert world.status.aggregator_crashes_total == 0


def test_workers_that_an_evicted_aggregator_sent_home_are_not_to_blame(world):
    world.evict(world.epoch)
    world.look()
    world.aggregator.phase = "Suspended"
    world.exit(world.epoch, 0)
    world.dismiss()
    for rank in range(3):
        world.exit(ReplicaId("worker", rank, 1), 0)
    world.settle()
    assert world.status.phase == "Running"
    assert all(h.crashes_total == 0 for h in world.status.ranks)


# ---- nodes


def test_a_worker_on_a_lost_node_is_deleted_by_force_and_replaced(world, actions_of):
    world.silence_node(world.worker(0), lost=True)
    made = world.look()
    assert actions_of(made) == ["Tell", "Stop worker-0-1", "Start worker-0-2"]
    assert [a.force for a in made.actions if isinstance(a, Stop)] == [True]
    assert (history(world).losses_total, history(world).crashes_total) == (1, 0)


def test_a_node_that_is_silent_for_less_than_the_grace_period_is_waited_for(world, actions_of):
    world.silence_node(world.worker(0))
    assert actions_of(world.look()) == []


def test_a_pod_that_is_ending_on_a_lost_node_is_not_waited_for(world, actions_of):
    world.delete(world.worker(0))
    world.look()
    world.silence_node(ReplicaId("worker", 0, 1), lost=True)
    assert actions_of(world.look()) == ["Stop worker-0-1"]
    assert ReplicaId("worker", 0, 1) not in world.replicas


def test_a_pod_that_ended_and_is_deleted_on_a_lost_node_is_let_go(world, actions_of):
    """Its kubelet would have confirmed the deletion: without it the pod would stay Terminating for ever."""
    old = world.worker(0)
    world.exit(old, 1)
    world.look()
    world.delete(old)
    world.silence_node(old, lost=True)
    assert "Stop worker-0-1" in actions_of(world.look())
    assert old not in world.replicas


def test_a_pod_pending_on_a_lost_node_is_replaced_too(world, actions_of):
    world.exit(world.worker(0), 1)
    world.look()
    world.silence_node(world.worker(0), lost=True)
    assert actions_of(world.look()) == ["Tell", "Stop worker-0-2"]
    world.now += 1
    assert actions_of(world.look()) == ["Start worker-0-3"]


def test_falling_silent_is_no_crash_where_it_was_the_node(world):
    """The aggregator misses a worker long before the cluster says that its node is lost."""
    world.freeze(world.worker(0))
    world.look()
    world.now += 61
    world.look()
    assert history(world).crashes == 1
    world.silence_node(ReplicaId("worker", 0, 1))
    world.look()
    assert (history(world).crashes, history(world).crashes_total, history(world).losses_total) == (0, 0, 1)


def test_falling_silent_on_a_node_already_in_doubt_is_no_crash(world):
    world.silence_node(world.worker(0))
    world.look()
    world.now += 61
    world.look()
    assert (history(world).crashes_total, history(world).losses_total) == (0, 1)


def test_a_worker_that_hangs_on_a_healthy_node_is_to_blame(world):
    world.freeze(world.worker(0))
    world.look()
    world.now += 61
    world.look()
    world.now += 61
    world.look()
    assert history(world).crashes_total == 1


def test_an_aggregator_on_a_lost_node_is_followed_by_the_next_epoch(world, actions_of):
    world.silence_node(world.epoch, lost=True)
    made = world.look()
    assert actions_of(made) == ["Stop aggregator-1", "Start aggregator-2"]
    assert world.status.aggregator_losses_total == 1
    world.silent = False
    world.settle()
    assert world.status.phase == "Running"


def test_an_aggregator_that_nothing_durable_would_outlive_is_waited_for(make_world, actions_of):
    world = make_world()
    world.pods, world.durable = True, False
    world.up()
    world.silence_node(world.epoch, lost=True)
    assert actions_of(world.look()) == []
    assert world.status.phase == "Running"


def test_once_its_pod_is_condemned_the_training_is_lost_and_the_job_says_so(make_world):
    world = make_world()
    world.pods, world.durable = True, False
    world.up()
    world.delete(world.epoch)
    world.silence_node(world.epoch, lost=True)
    world.look()
    assert world.condition("Failed").reason == "NoCheckpoint"


def test_the_spec_alone_does_not_say_whether_checkpoints_last(make_world, actions_of):
    world = make_world(checkpoint=True)
    world.pods, world.durable = True, False
    world.up()
    world.vanish(world.epoch)
    world.look()
    assert world.condition("Failed").reason == "NoCheckpoint"


def test_an_aggregator_that_its_kubelet_finds_well_is_not_replaced_for_our_deafness(world, actions_of):
    world.replicas[world.epoch] = structs.replace(world.replicas[world.epoch], ready=True)
    world.silent = True
    world.look()
    world.now += 500
    made = world.look()
    assert actions_of(made) == []
    assert any("this engine" in line for line in made.explanation)


def test_a_silent_aggregator_on_a_node_in_doubt_is_left_to_the_grace_period(world, actions_of):
    world.silence_node(world.epoch)
    world.look()
    world.now += 500
    assert actions_of(world.look()) == []
    assert world.status.aggregator_crashes_total == 0


def test_a_condition_says_when_it_is_this_engine_that_is_cut_off(world):
    world.replicas[world.epoch] = structs.replace(world.replicas[world.epoch], ready=True)
    world.silent = True
    world.look()
    ready = world.condition("Ready")
    assert (ready.status, ready.reason) == ("Unknown", "AggregatorUnreachable")
    world.silent = False
    world.look()
    assert world.condition("Ready").status == "True"


# ---- suspension


def test_no_pods_are_left_while_a_job_is_suspended(world):
    world.exit(world.worker(0), 1)
    world.look()
    world.policy = {**world.policy, "suspend": True}
    world.settle()
    assert world.status.phase == "Suspended"
    assert world.replicas == {}
    world.policy = {**world.policy, "suspend": False}
    world.settle()
    assert world.status.phase == "Running"


def test_a_suspension_that_would_lose_the_training_is_refused_and_says_so(make_world, actions_of):
    world = make_world()
    world.pods, world.durable = True, False
    world.up()
    world.policy = {"suspend": True}
    assert actions_of(world.look()) == []
    world.look()
    assert world.condition("Suspended").status == "False"
    assert world.condition("Suspended").reason == "SuspendRefused"
    assert world.announced().count("SuspendRefused") == 1
    world.finish("Succeeded")
    world.look()
    assert world.status.phase == "Succeeded"


def test_taking_a_refused_suspension_back_takes_the_condition_back(make_world):
    world = make_world()
    world.pods, world.durable = True, False
    world.up()
    world.policy = {"suspend": True}
    world.look()
    world.policy = {"suspend": False}
    world.look()
    assert world.condition("Suspended").reason == "Active"
    world.policy = {"suspend": True}
    world.look()
    assert world.announced().count("SuspendRefused") == 2


def test_a_job_that_has_not_begun_may_be_suspended_whatever_its_storage(make_world):
    world = make_world()
    world.pods, world.durable = True, False
    world.look()
    world.policy = {"suspend": True}
    world.settle()
    assert world.status.phase == "Suspended"
    assert world.replicas == {}


# ---- the operator


def test_a_new_term_of_the_lease_is_told_to_the_aggregator(world, actions_of):
    before = world.status.desired
    world.term = 7
    assert actions_of(world.look()) == ["Tell"]
    assert world.status.desired.order > before.order
    assert actions_of(world.look()) == []


def test_an_operator_that_is_named_as_the_manager_manages(make_world, actions_of):
    world = make_world(workers=1, backups=0, managedBy="backupsync.dev/operator")
    world.pods = True
    assert actions_of(world.look()) == ["Start aggregator-1", "Start worker-0-1"]
    other = make_world(managedBy="kueue.x-k8s.io/multikueue")
    other.pods = True
    assert other.look().actions == ()


def test_memory_lost_with_the_status_never_brings_an_attempt_back(world):
    world.evict(world.worker(0))
    world.look()
    world.status = JobStatus()
    made = world.look()
    assert made.status.aggregator_attempt == 2
    assert [m.attempt for m in made.status.members] == [3, 2, 2]
