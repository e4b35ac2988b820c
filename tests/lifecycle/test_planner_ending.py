"""The end of a job: success, failure, deadline, who is let go how, and what is deleted when."""

import pytest
from msgspec import structs

from backupsync.lifecycle import at_rest
from backupsync.lifecycle.types import ReplicaId, Stop


def test_success_is_the_aggregators_word_and_its_figures_are_kept(make_world):
    world = make_world().up()
    world.train(95)
    world.finish("Succeeded", "Completed", "100 iterations")
    made = world.look()
    assert made.status.phase == "Succeeded"
    assert made.status.completion_time == world.now
    assert made.status.progress.iteration == 100
    assert world.condition("Succeeded").status == "True"
    assert world.condition("Failed").status == "False"
    assert world.condition("Ready").reason == "Finished"


def test_failure_keeps_the_aggregators_reason(make_world):
    world = make_world().up()
    world.finish("Failed", "Diverged", "10 gradients in a row were not finite")
    world.look()
    assert world.condition("Failed").status == "True"
    assert world.condition("Failed").reason == "Diverged"
    assert world.condition("Failed").message == "10 gradients in a row were not finite"


def test_workers_leave_by_themselves_and_then_the_aggregator_is_told_to_stop(make_world, actions_of):
    world = make_world().up()
    world.finish()
    first = world.look()
    assert actions_of(first) == []
    assert "3 workers are leaving by themselves" in first.explanation
    assert first.requeue_after == 10.0
    world.dismiss()
    assert actions_of(world.look()) == ["Tell"]
    assert world.aggregator.desired.stop
    world.obey()
    rest = world.look()
    assert rest.actions == ()
    assert rest.requeue_after is None
    assert at_rest(world.status, world.observe())


def test_workers_that_do_not_leave_are_stopped(make_world, actions_of):
    world = make_world().up()
    world.finish()
    world.look()
    world.now += 10
    assert actions_of(world.look()) == ["Tell", "Stop worker-0-1", "Stop worker-1-1", "Stop worker-2-1"]
    assert actions_of(world.look()) == [], "they are ending already"


def test_a_worker_that_the_aggregator_lost_is_not_waited_for(make_world, actions_of):
    world = make_world().up()
    world.freeze(world.worker(2))
    world.finish()
    assert actions_of(world.look()) == ["Stop worker-2-1"]


def test_an_aggregator_that_does_not_stop_is_ended_after_the_grace_of_its_checkpoint(make_world, actions_of):
    world = make_world(suspendGraceSeconds=20).up()
    world.finish()
    world.dismiss()
    assert actions_of(world.look()) == ["Tell"]
    world.now += 19
    assert actions_of(world.look()) == []
    world.now += 1
    assert actions_of(world.look()) == ["Stop aggregator-1"]


def test_a_job_that_the_planner_fails_lets_its_aggregator_write_a_checkpoint(make_world, actions_of):
    world = make_world(backoffLimit=0).up()
    world.exit(world.worker(0), 1)
    made = world.look()
    assert actions_of(made) == ["Tell"]
    assert made.status.desired.stop
    world.settle()
    assert world.alive() == []


def test_without_an_aggregator_workers_are_stopped_at_once(make_world, actions_of):
    world = make_world(backoffLimit=0).up()
    world.exit(world.epoch, 1)
    assert actions_of(world.look()) == ["Stop worker-0-1", "Stop worker-1-1", "Stop worker-2-1"]


@pytest.mark.parametrize("end", ["Succeeded", "Failed"])
def test_finished_is_finished(make_world, actions_of, end):
    world = make_world().up()
    world.finish(end)
    world.look()
    done = world.status.completion_time
    world.aggregation = {"workers": 9, "backupWorkers": 0}
    world.policy = {"suspend": True}
    world.finish("Failed" if end == "Succeeded" else "Succeeded")
    world.stop_requested = True
    world.settle()
    assert world.status.phase == end
    assert world.status.completion_time == done
    assert world.alive() == []
    assert world.look().actions == ()


def test_a_straggler_that_turns_up_after_the_end_is_stopped(make_world, actions_of):
    world = make_world().up()
    world.finish()
    world.settle()
    late = ReplicaId("worker", 7, 1)
    world.replicas[late] = structs.replace(next(iter(world.replicas.values())), id=late, phase="Running")
    world.now += 60
    assert actions_of(world.look()) == ["Stop worker-7-1"]


def test_the_deadline_fails_the_job_exactly_when_it_is_due(make_world):
    world = make_world(activeDeadlineSeconds=100).up()
    assert world.look().requeue_after == 100.0
    world.now += 99.5
    made = world.look()
    assert made.status.phase == "Running"
    assert made.requeue_after == pytest.approx(0.5)
    world.now += 0.5
    made = world.look()
    assert made.status.phase == "Failed"
    assert world.condition("Failed").reason == "DeadlineExceeded"
    assert made.status.desired.stop, "a checkpoint is written first"


def test_suspension_does_not_count_towards_the_deadline(make_world):
    world = make_world(activeDeadlineSeconds=100).up()
    world.now += 60
    world.look()
    world.policy = {**world.policy, "suspend": True}
    world.settle()
    assert world.status.phase == "Suspended"
    world.now += 10_000
    world.policy = {**world.policy, "suspend": False}
    world.look()
    assert world.status.phase == "Pending"
    assert 60 <= world.status.active_seconds < 70


def test_a_clock_set_back_takes_nothing_away(make_world):
    world = make_world(activeDeadlineSeconds=100).up()
    world.now += 50
    world.look()
    world.now -= 1000
    assert world.look().status.active_seconds == 50


def test_the_record_is_deleted_exactly_when_its_time_has_come(make_world, actions_of):
    world = make_world(ttlSecondsAfterFinished=300).up()
    world.finish()
    world.look()
    world.dismiss()
    world.look()
    world.obey()
    made = world.look()
    assert made.actions == ()
    assert made.requeue_after == 300.0
    world.now += 299
    assert world.look().requeue_after == 1.0
    world.now += 1
    assert actions_of(world.look()) == ["Delete"]
    assert world.deleted


def test_the_record_is_not_deleted_under_running_replicas(make_world, actions_of):
    world = make_world(ttlSecondsAfterFinished=0).up()
    world.finish()
    assert actions_of(world.look()) == []
    world.dismiss()
    world.look()
    world.obey()
    assert actions_of(world.look()) == ["Delete"]


def test_a_record_without_ttl_is_kept(make_world):
    world = make_world().up()
    world.finish()
    world.settle()
    made = world.look()
    assert "the job has ended; its record is kept" in made.explanation
    assert made.requeue_after is None


def test_clean_pod_policy_none_leaves_running_pods_alone_but_never_processes(make_world, actions_of):
    for pods in (True, False):
        world = make_world(cleanPodPolicy="None")
        world.pods = pods
        world.up()
        world.finish()
        world.look()
        world.now += 10
        stopped = [a for a in world.look().actions if isinstance(a, Stop)]
        assert bool(stopped) is not pods


def test_clean_pod_policy_all_removes_finished_pods_too(make_world):
    world = make_world(cleanPodPolicy="All")
    world.pods = True
    world.up()
    world.finish()
    world.settle()
    assert world.replicas == {}


def test_clean_pod_policy_running_keeps_finished_pods(make_world):
    world = make_world()
    world.pods = True
    world.up()
    world.finish()
    world.settle()
    assert len(world.replicas) == 4
    assert world.alive() == []


def test_a_job_managed_by_another_controller_is_left_alone(make_world):
    world = make_world(managedBy="example.com/other")
    made = world.look()
    assert made.actions == ()
    assert made.requeue_after is None
    assert made.status.members == ()
    assert (world.condition("Accepted").status, world.condition("Accepted").reason) == ("False", "ManagedBy")
