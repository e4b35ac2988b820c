"""Pods that cannot start: why, said once; how long the job waits; and that nothing waits that need not."""

from typing import Any

import pytest
from msgspec import structs

from backupsync.lifecycle.pending import Stuck, in_words
from backupsync.lifecycle.types import Rejection, ReplicaId
from backupsync.lifecycle.words import ranks_of

FULL = ("Unschedulable", "0/2 nodes are available: 2 Insufficient cpu.")
NO_IMAGE = ("ImagePullBackOff", 'Back-off pulling image "worker:9"')


def pods(make_world: Any, stuck: dict[tuple[str, int], tuple[str, str]], **more: Any) -> Any:
    world = make_world(workers=2, backups=1, pendingDeadlineSeconds=100, **more)
    world.pods = True
    world.stuck = stuck
    for _ in range(2):
        world.look()
        world.boot()
        world.train()
    world.look()
    return world


def test_a_pending_worker_does_not_stop_a_job_that_has_n_others(make_world, actions_of):
    world = pods(make_world, {("worker", 2): FULL})
    assert world.status.phase == "Running"
    ready = world.condition("Ready")
    assert ready.status == "True"
    assert "worker 2 (attempt 1) is pending: Unschedulable: 0/2 nodes" in ready.message
    world.now += 100_000
    assert world.look().status.phase == "Running"
    assert world.look().requeue_after is None


def test_while_training_waits_the_condition_says_for_what(make_world):
    world = pods(make_world, {("worker", 1): FULL, ("worker", 2): FULL})
    ready = world.condition("Ready")
    assert (ready.status, ready.reason) == ("False", "Unschedulable")
    assert "2 replicas are pending: Unschedulable: 0/2 nodes are available" in ready.message


def test_a_pending_aggregator_says_so_too(make_world):
    world = pods(make_world, {("aggregator", 0): NO_IMAGE})
    ready = world.condition("Ready")
    assert (ready.status, ready.reason) == ("False", "ImagePullBackOff")
    assert "worker:9" in ready.message


@pytest.mark.parametrize("stuck", [{("aggregator", 0): FULL}, {("worker", 0): FULL, ("worker", 1): NO_IMAGE}])
def test_a_job_that_waits_too_long_fails_with_the_reason(make_world, stuck):
    world = pods(make_world, stuck)
    assert world.look().requeue_after == 100.0
    world.now += 100
    world.look()
    failed = world.condition("Failed")
    assert failed.reason == "PendingDeadlineExceeded"
    assert all(": ".join(why) in failed.message for why in stuck.values())
    assert "pendingDeadlineSeconds 100" in failed.message


def test_the_clock_stands_still_while_enough_are_live(make_world):
    world = pods(make_world, {("worker", 2): FULL})
    world.now += 99
    world.exit(world.worker(0), 1)
    world.look()
    world.now += 99
    world.boot()
    world.train()
    world.look()
    world.now += 99
    assert world.look().status.phase == "Running"


def test_a_slow_start_is_no_pending_reason_and_yet_has_a_deadline(make_world):
    world = pods(make_world, {("worker", 0): ("", ""), ("worker", 1): ("", "")})
    assert world.condition("Ready").reason == "Joining"
    assert "2 pods are starting" in world.condition("Ready").message
    world.now += 100
    world.look()
    assert world.condition("Failed").reason == "PendingDeadlineExceeded"


def test_pods_that_run_but_have_not_joined_are_not_pending(make_world):
    world = make_world(workers=2, backups=0, pendingDeadlineSeconds=100)
    world.pods = True
    world.look()
    world.boot()
    for id_ in [ReplicaId("worker", 0, 1), ReplicaId("worker", 1, 1)]:
        world.aggregator.members.pop((id_.rank, id_.attempt))
    world.look()
    world.now += 100_000
    assert world.look().status.phase == "Pending"


def test_processes_are_never_pending(make_world):
    world = make_world(workers=1, backups=0, pendingDeadlineSeconds=1)
    world.look()
    world.now += 100
    assert world.look().status.phase == "Pending"


def test_a_reason_is_told_once_for_as_long_as_anything_is_pending(make_world):
    world = pods(make_world, {("worker", 1): FULL, ("worker", 2): NO_IMAGE})
    for _ in range(3):
        world.now += 10
        world.look()
    assert world.announced().count("Unschedulable") == 1
    assert world.announced().count("ImagePullBackOff") == 1
    world.stuck = {}
    world.boot()
    world.train()
    world.look()
    world.stuck = {("worker", 0): FULL}
    world.exit(world.worker(0), 1)
    world.look()
    world.look()
    assert world.announced().count("Unschedulable") == 2


def test_what_the_api_server_will_not_create_is_pending_in_its_words(make_world):
    world = make_world(workers=1, backups=0, pendingDeadlineSeconds=100)
    world.pods = True
    quota = 'pods "digits-aggregator-1" is forbidden: exceeded quota'
    world.look((0, 1, 2, 3))
    world.rejections = (Rejection(replica=world.epoch, reason="Forbidden", message=quota),)
    made = world.look((0, 1, 2, 3))
    assert any(getattr(a, "replica", None) == world.epoch for a in made.actions), "it is tried again"
    assert world.condition("Ready").reason == "Forbidden"
    assert quota in world.condition("Ready").message
    assert world.condition("Accepted").status == "True"
    world.now += 101
    world.look((0, 1, 2, 3))
    assert world.condition("Failed").reason == "PendingDeadlineExceeded"


def test_a_broken_template_shows_the_apis_own_error(make_world):
    world = make_world(workers=1, backups=0)
    world.pods = True
    said = 'Pod "digits-worker-0-1" is invalid: spec.containers[0].image: Required value'
    world.rejections = (Rejection(replica=ReplicaId("worker", 0, 1), reason="Invalid", message=said),)
    world.look((0, 1, 2))
    world.look((0, 1, 2))
    accepted = world.condition("Accepted")
    assert (accepted.status, accepted.reason) == ("False", "TemplateRefused")
    assert said in accepted.message
    world.rejections = ()
    world.look()
    assert world.condition("Accepted").status == "True"


def test_a_rejection_of_another_object_is_shown_as_well(make_world):
    world = make_world(workers=1, backups=0)
    world.pods = True
    world.rejections = (Rejection(reason="Forbidden", message="exceeded quota: claims"),)
    world.look()
    assert "exceeded quota: claims" in world.condition("Ready").message


def test_a_job_that_its_aggregator_gave_up_below_quorum_says_which_pods_were_missing(make_world):
    world = pods(make_world, {("worker", 1): FULL, ("worker", 2): FULL})
    world.finish("Failed", "BelowQuorum", "1 of 2 workers live for 600 s")
    world.look()
    failed = world.condition("Failed")
    assert failed.reason == "BelowQuorum"
    assert "Insufficient cpu" in failed.message


def test_a_later_epoch_that_has_a_node_and_does_not_start_most_likely_waits_for_its_volume(make_world):
    world = pods(make_world, {})
    world.checkpoint = {"volumeClaimTemplate": {"spec": {}}}
    world.vanish(world.epoch)
    world.stuck = {("aggregator", 0): ("", "")}
    world.look()
    world.replicas[world.epoch] = structs.replace(world.replicas[world.epoch], node="n2")
    made = world.look()
    assert made.requeue_after is not None
    assert made.requeue_after <= 60
    assert world.condition("Ready").reason == "AggregatorNotReady"
    world.now += 61
    world.look()
    ready = world.condition("Ready")
    assert ready.reason == "CheckpointVolumeStuck"
    assert "ReadWriteMany" in ready.message


def test_many_reasons_stay_readable():
    stuck = [Stuck(f"worker {n}", f"Reason{n}", "x") for n in range(9)]
    said = in_words(stuck)
    assert said.endswith("and 6 more reasons")
    assert len(said) < 200
    assert in_words([]) == ""


def test_ranks_that_share_a_fate_share_a_line(make_world):
    world = make_world(workers=50, backups=3)
    lines = [line for line in world.look().explanation if line.startswith("start worker")]
    assert lines == ["start workers 0-52 (attempt 1): its rank needs a worker"]
    assert ranks_of([3, 1, 2, 7, 9, 8, 20]) == "1-3, 7-9, 20"
