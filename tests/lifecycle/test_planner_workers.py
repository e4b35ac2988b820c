"""What becomes of a worker that exits, vanishes, hangs or restarts in place."""

import pytest
from msgspec import structs

from backupsync.exits import ExitKind
from backupsync.lifecycle import with_restart
from backupsync.lifecycle.restarts import backoff
from backupsync.lifecycle.types import ReplicaId, Start, Stop


def history(world, rank: int):
    return next(h for h in world.status.ranks if h.rank == rank)


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 0), (1, 0), (2, 0.5), (3, 1), (4, 2), (5, 4), (8, 32), (9, 60), (5000, 60)]
)
def test_the_first_retry_is_immediate_and_the_pause_doubles_up_to_a_minute(failures, seconds):
    assert backoff(failures) == seconds


@pytest.mark.parametrize("code", [1, 134, 137, 139, 143])
def test_a_crashed_worker_is_replaced_at_once_by_its_next_attempt(make_world, actions_of, code):
    world = make_world().up()
    world.exit(world.worker(1), code, "RuntimeError: boom")
    assert actions_of(world.look()) == ["Tell", "Start worker-1-2"]
    assert history(world, 1).crashes == 1
    world.settle()
    assert world.condition("Ready").status == "True"


def test_the_same_exit_is_counted_once_however_often_it_is_seen(make_world):
    world = make_world().up()
    world.exit(world.worker(1), 1)
    for _ in range(4):
        world.look()
    assert history(world, 1).crashes == 1
    assert world.announced().count("WorkerReplaced") == 1


def test_further_crashes_wait_and_the_plan_knows_until_when(make_world, actions_of):
    world = make_world().up()
    for _ in range(2):
        world.exit(world.worker(1), 1)
        waiting = world.look()
        world.boot()
    assert history(world, 1).crashes == 2
    assert actions_of(waiting) == ["Tell"], "told, but not yet started"
    assert waiting.requeue_after == pytest.approx(0.5)
    assert "worker 1 (attempt 3) waits out its pause of 0.5 s" in waiting.explanation
    world.now += 0.5
    assert actions_of(world.look()) == ["Start worker-1-3"]


def test_a_gradient_between_two_crashes_clears_the_count(make_world):
    world = make_world(backoffLimit=1).up()
    for _ in range(5):
        world.exit(world.worker(1), 1)
        world.look()
        world.now += 60
        world.look()
        world.boot()
        world.train()
        world.look()
    assert history(world, 1).crashes == 0
    assert history(world, 1).crashes_total == 5
    assert world.status.phase == "Running"


def test_crashes_without_a_gradient_between_end_the_job_with_the_last_words(make_world):
    world = make_world(backoffLimit=2).up()
    for attempt in range(1, 4):
        world.exit(world.worker(1), 1, f"Traceback ...\nRuntimeError: boom {attempt}")
        world.look()
        world.now += 60
        world.look()
        world.boot()
    assert world.status.phase == "Failed"
    failed = world.condition("Failed")
    assert failed.reason == "BackoffLimitExceeded"
    assert "worker 1 failed 3 times in a row" in failed.message
    assert "backoffLimit 2" in failed.message
    assert "boom 3" in failed.message
    assert history(world, 1).crashes == 3


def test_a_backoff_limit_of_0_forgives_nothing(make_world):
    world = make_world(backoffLimit=0).up()
    world.exit(world.worker(0), 1)
    assert world.look().status.phase == "Failed"


@pytest.mark.parametrize(
    ("code", "reason"), [(65, "ProgramRefused"), (73, "CannotWrite"), (78, "BadConfiguration")]
)
def test_an_exit_that_cannot_heal_fails_the_job_at_once(make_world, code, reason):
    world = make_world().up()
    world.exit(world.worker(0), code, "digits.Digits has no method loss")
    world.look()
    assert world.status.phase == "Failed"
    assert world.condition("Failed").reason == reason
    assert "digits.Digits has no method loss" in world.condition("Failed").message


def test_running_out_of_memory_is_named_with_its_remedy(make_world):
    world = make_world(backoffLimit=0).up()
    world.oom(world.worker(0))
    world.look()
    message = world.condition("Failed").message
    assert "memory" in message
    assert "spec.training.batchSize" in message


def test_a_worker_that_ended_with_0_waits_for_news_of_the_jobs_end(make_world, actions_of):
    world = make_world().up()
    world.exit(world.worker(2), 0)
    made = world.look()
    assert actions_of(made) == []
    assert made.requeue_after == 2.0
    world.now += 1
    world.finish("Succeeded")
    assert world.look().status.phase == "Succeeded"


def test_a_worker_that_ended_with_0_while_the_job_goes_on_is_replaced_and_counted(make_world, actions_of):
    world = make_world().up()
    world.exit(world.worker(2), 0)
    world.look()
    world.now += 2
    assert actions_of(world.look()) == ["Tell", "Start worker-2-2"]
    assert history(world, 2).crashes == 1


def test_a_worker_that_vanished_is_replaced_and_not_blamed(make_world, actions_of):
    world = make_world(backoffLimit=0).up()
    world.vanish(world.worker(0))
    assert actions_of(world.look()) == ["Tell", "Start worker-0-2"]
    assert (history(world, 0).crashes, history(world, 0).losses) == (0, 1)


def test_workers_that_vanish_again_and_again_are_started_ever_more_slowly(make_world):
    world = make_world(backoffLimit=0).up()
    for _ in range(4):
        world.vanish(world.worker(0))
        made = world.look()
        world.now += made.requeue_after or 0
        world.look()
        world.boot()
        world.look()
    assert made.requeue_after == 2.0
    assert world.status.phase == "Running"


def test_an_aggregator_out_of_reach_is_not_the_workers_fault(make_world):
    world = make_world(backoffLimit=0).up()
    world.exit(world.epoch, 1)
    world.exit(world.worker(0), 69)
    world.policy = {"backoffLimit": 1}
    world.look()
    assert history(world, 0).crashes == 0
    assert history(world, 0).losses == 1


def test_a_fenced_worker_that_is_still_wanted_gets_a_new_attempt_and_is_counted(make_world, actions_of):
    world = make_world(backoffLimit=1).up()
    world.exit(world.worker(0), 76)
    assert actions_of(world.look()) == ["Tell", "Start worker-0-2"]
    world.boot()
    world.exit(world.worker(0), 76)
    assert world.look().status.phase == "Failed"


def test_a_worker_turned_away_before_the_aggregator_knew_of_it_is_not_blamed(make_world):
    world = make_world(workers=2, backups=0, backoffLimit=0).up()
    world.aggregation = {"workers": 2, "backupWorkers": 1}
    world.look(lose={0, 1})
    world.look(lose={0})
    world.boot()
    assert world.replicas[ReplicaId("worker", 2, 1)].exit is ExitKind.ASKED
    world.look()
    assert world.status.phase == "Running"
    assert history(world, 2).losses == 1
    world.settle()


def test_a_restart_that_was_asked_for_happens_in_place_and_is_not_counted(make_world, actions_of):
    world = make_world(backoffLimit=0).up()
    world.status = with_restart(world.status, 1, start=0)
    asked = world.look()
    assert actions_of(asked) == ["Tell"]
    assert asked.status.desired.restart == ((1, 1),)
    world.exit(world.worker(1), 75)
    assert actions_of(world.look()) == ["Start worker-1-1"]
    world.boot()
    settled = world.look()
    assert settled.status.desired.restart == ()
    assert history(world, 1).crashes == 0
    assert world.replicas[world.worker(1)].starts == 1


def test_a_lost_start_in_place_is_planned_again(make_world, actions_of):
    world = make_world().up()
    world.status = with_restart(world.status, 1, start=0)
    world.look()
    world.exit(world.worker(1), 75)
    world.look(lose={0, 1})
    assert actions_of(world.look()) == ["Start worker-1-1"]


def test_a_restart_in_place_by_a_kubelet_is_seen_by_its_start_counter(make_world):
    world = make_world(backoffLimit=0).up()
    world.status = with_restart(world.status, 1, start=0)
    world.look()
    world.exit(world.worker(1), 75)
    world.act(start_of(world.worker(1)))
    world.look()
    assert world.status.restarts == ()
    assert world.status.phase == "Running"
    assert "WorkerRestarted" in world.announced()


def test_restarts_by_a_kubelet_that_nobody_asked_for_are_crashes(make_world):
    world = make_world(backoffLimit=1).up()
    id_ = world.worker(1)
    for start in (1, 2):
        world.replicas[id_] = structs.replace(world.replicas[id_], starts=start, message="RuntimeError: boom")
        world.look()
        world.look()
        assert history(world, 1).crashes == start
    assert world.status.phase == "Failed"
    assert "restarted in place: RuntimeError: boom" in world.condition("Failed").message


def test_workers_sent_home_by_an_aggregator_that_was_ended_from_outside_are_not_blamed(
    make_world, actions_of
):
    world = make_world(workers=1, backups=1, backoffLimit=0).up()
    world.exit(world.worker(0), 0)
    world.look()
    world.exit(world.epoch, 0)
    world.look()
    world.exit(world.worker(1), 0)
    made = world.look()
    assert [(m.rank, m.attempt) for m in made.status.members] == [(0, 2), (1, 2)]
    assert (history(world, 0).crashes, history(world, 1).crashes) == (0, 0)
    world.settle()
    assert world.status.phase == "Running"


def test_restarts_in_place_that_nobody_asked_for_are_crashes(make_world):
    world = make_world(backoffLimit=2).up()
    for _ in range(3):
        world.exit(world.worker(1), 75)
        world.look()
        world.now += 60
        world.look()
        world.boot()
    assert world.status.phase == "Failed"
    assert world.condition("Failed").reason == "BackoffLimitExceeded"


def test_a_restart_can_be_asked_only_of_a_member(make_world):
    world = make_world().up()
    with pytest.raises(ValueError, match="rank 9 is no member"):
        with_restart(world.status, 9, start=0)
    once = with_restart(world.status, 1, start=0)
    assert with_restart(once, 1, start=0) == once


def test_a_lost_worker_whose_replica_runs_may_come_back(make_world, actions_of):
    world = make_world().up()
    world.freeze(world.worker(1))
    made = world.look()
    assert actions_of(made) == []
    assert made.requeue_after == 30.0, "three times wire.timeoutSeconds"
    world.now += 29
    assert actions_of(world.look()) == []
    world.thaw(world.worker(1))
    world.boot()
    world.look()
    assert history(world, 1).lost_since is None


def test_a_worker_lost_for_three_timeouts_is_ended_by_force_and_replaced(make_world, actions_of):
    world = make_world().up()
    world.freeze(world.worker(1))
    world.look()
    world.now += 30
    made = world.look()
    assert actions_of(made) == ["Tell", "Stop worker-1-1", "Start worker-1-2"]
    assert [a.grace_seconds for a in made.actions if isinstance(a, Stop)] == [0.0]
    assert history(world, 1).crashes == 1


def test_exits_of_replicas_that_nobody_wants_count_for_nothing(make_world):
    world = make_world(workers=2, backups=1, backoffLimit=0).up()
    old = world.worker(2)
    world.aggregation = {"workers": 2, "backupWorkers": 0}
    world.look()
    world.exit(old, 65, "too late to matter")
    assert world.look().status.phase == "Running"


def test_long_last_words_keep_their_end(make_world):
    world = make_world(backoffLimit=0).up()
    world.exit(world.worker(0), 1, "frame\n" * 5000 + "RuntimeError: the cause")
    world.look()
    assert world.condition("Failed").message.endswith("RuntimeError: the cause")
    assert len(world.condition("Failed").message) < 3000


def start_of(id_: ReplicaId) -> Start:
    return Start(id_, "the kubelet restarted it")
