"""Suspension by the spec and by Ctrl-C: a checkpoint first, then rest, then on under a new epoch."""

from backupsync.lifecycle import at_rest


def suspend(world, value: bool = True) -> None:
    world.policy = {**world.policy, "suspend": value}


def test_a_job_created_suspended_starts_nothing(make_world):
    world = make_world(suspend=True)
    made = world.look()
    assert [a for a in made.actions if type(a).__name__ != "Announce"] == []
    assert made.status.phase == "Suspended"
    assert made.status.start_time is None
    assert world.condition("Suspended").status == "True"
    assert world.look().actions == ()


def test_a_job_created_suspended_starts_when_it_is_let_go(make_world, actions_of):
    world = make_world(workers=1, backups=0, suspend=True)
    world.look()
    suspend(world, False)
    made = world.look()
    assert actions_of(made) == ["Start aggregator-1", "Start worker-0-1"]
    assert made.status.start_time == world.now
    assert world.condition("Suspended").status == "False"


def test_suspension_waits_for_the_checkpoint_before_anything_is_stopped(make_world, actions_of):
    world = make_world().up()
    suspend(world)
    made = world.look()
    assert actions_of(made) == ["Tell"]
    assert made.status.desired.suspend
    assert made.status.phase == "Running"
    assert world.condition("Suspended").reason == "Suspending"
    assert actions_of(world.look()) == []
    world.obey()
    rest = world.look()
    assert rest.status.phase == "Suspended"
    assert rest.status.members == ()
    assert actions_of(rest) == ["Stop aggregator-1"]
    world.reap()
    assert world.look().actions == ()
    assert world.condition("Suspended").status == "True"
    assert at_rest(world.status, world.observe())


def test_suspension_waits_no_longer_than_its_grace(make_world, actions_of):
    world = make_world(suspendGraceSeconds=20).up()
    suspend(world)
    world.look()
    assert world.look().requeue_after == 20.0
    world.now += 20
    made = world.look()
    assert made.status.phase == "Suspended"
    assert actions_of(made) == [
        "Stop worker-0-1",
        "Stop worker-1-1",
        "Stop worker-2-1",
        "Stop aggregator-1",
    ]


def test_an_aggregator_that_died_meanwhile_is_not_waited_for(make_world):
    world = make_world().up()
    suspend(world)
    world.look()
    world.exit(world.epoch, 1)
    assert world.look().status.phase == "Suspended"


def test_an_aggregator_that_never_answered_is_not_waited_for(make_world, actions_of):
    world = make_world(workers=1, backups=0)
    world.look()
    suspend(world)
    made = world.look()
    assert made.status.phase == "Suspended"
    assert actions_of(made) == ["Stop worker-0-1", "Stop aggregator-1"]


def test_workers_that_end_while_the_job_is_being_suspended_are_not_replaced(make_world):
    world = make_world(backoffLimit=0).up()
    suspend(world)
    world.look()
    world.exit(world.worker(0), 0)
    world.exit(world.worker(1), 1)
    made = world.look()
    assert made.actions == ()
    assert made.status.phase == "Running"


def test_resuming_takes_a_new_epoch_and_new_attempts(make_world, actions_of):
    world = make_world(workers=1, backups=1).up()
    suspend(world)
    world.settle()
    suspend(world, False)
    made = world.look()
    assert actions_of(made) == ["Start aggregator-2", "Start worker-0-2", "Start worker-1-2"]
    assert not made.status.desired.suspend
    assert made.status.desired.generation == 3
    assert "Resumed" in world.announced()
    world.settle()
    assert world.status.phase == "Running"


def test_resuming_gives_fresh_budgets_of_crashes(make_world):
    world = make_world(backoffLimit=2).up()
    for _ in range(2):
        world.exit(world.worker(0), 1)
        world.look()
        world.now += 5
        world.look()
        world.boot()
    suspend(world)
    world.settle()
    suspend(world, False)
    world.look()
    world.boot()
    world.exit(world.worker(0), 1)
    assert world.look().status.phase != "Failed"


def test_a_suspension_taken_back_half_way_is_completed_and_then_resumed(make_world, actions_of):
    world = make_world(workers=1, backups=0).up()
    suspend(world)
    world.look()
    suspend(world, False)
    made = world.look()
    assert actions_of(made) == []
    assert made.status.halting_since is not None
    world.obey()
    made = world.look()
    assert made.status.phase == "Pending"
    assert actions_of(made) == ["Stop aggregator-1", "Start worker-0-2"]
    world.settle()
    assert world.status.aggregator_attempt == 2
    assert world.status.phase == "Running"


def test_scaling_while_suspended_takes_effect_on_resuming(make_world):
    world = make_world(workers=2, backups=1).up()
    suspend(world)
    world.settle()
    world.aggregation = {"workers": 3, "backupWorkers": 1}
    suspend(world, False)
    world.settle()
    assert [m.rank for m in world.status.members] == [0, 1, 2, 3]


def test_resuming_without_a_checkpoint_fails_and_says_what_would_have_helped(make_world):
    world = make_world(checkpoint=False).up()
    world.stop_requested = True
    world.settle()
    world.stop_requested = False
    world.look()
    assert world.status.phase == "Failed"
    assert world.condition("Failed").reason == "NoCheckpoint"


def test_training_that_ends_while_it_is_being_suspended_has_ended(make_world):
    world = make_world().up()
    suspend(world)
    world.look()
    world.finish("Succeeded")
    assert world.look().status.phase == "Succeeded"


def test_ctrl_c_asks_for_a_checkpoint_and_then_everything_ends(make_world, actions_of):
    world = make_world().up()
    world.stop_requested = True
    made = world.look()
    assert actions_of(made) == ["Tell"]
    assert made.status.desired.stop
    world.obey()
    world.look()
    assert world.status.phase == "Suspended"
    assert world.condition("Suspended").reason == "Stopped"
    assert world.alive() == []
    assert at_rest(world.status, world.observe())


def test_workers_still_leaving_after_ctrl_c_have_a_while(make_world, actions_of):
    world = make_world(workers=1, backups=0).up()
    world.stop_requested = True
    world.look()
    world.exit(world.epoch, 0)
    made = world.look()
    assert made.status.phase == "Suspended"
    assert actions_of(made) == []
    assert made.requeue_after == 10.0
    world.now += 10
    assert actions_of(world.look()) == ["Stop worker-0-1"]


def test_a_worker_that_had_not_joined_before_the_aggregator_ended_is_not_waited_for(make_world, actions_of):
    world = make_world(workers=1, backups=1).up()
    world.stop_requested = True
    del world.aggregator.members[(1, 1)]
    world.look()
    world.exit(world.epoch, 0)
    assert actions_of(world.look()) == ["Stop worker-1-1"]


def test_ctrl_c_before_anything_was_started_starts_nothing(make_world):
    world = make_world()
    world.stop_requested = True
    world.look()
    assert world.replicas == {}
    assert world.status.phase == "Suspended"


def test_ctrl_c_during_a_suspension_becomes_a_stop(make_world, actions_of):
    world = make_world().up()
    suspend(world)
    world.look()
    world.stop_requested = True
    made = world.look()
    assert actions_of(made) == ["Tell"]
    assert made.status.desired.stop
    assert made.status.desired.suspend
    world.settle()
    assert world.condition("Suspended").reason == "Stopped"


def test_the_next_run_after_ctrl_c_goes_on_under_a_new_epoch(make_world, actions_of):
    world = make_world(workers=1, backups=0).up()
    world.stop_requested = True
    world.settle()
    world.stop_requested = False
    world.replicas.clear()
    world.now += 86400
    made = world.look()
    assert actions_of(made) == ["Start aggregator-2", "Start worker-0-2"]
    assert not made.status.desired.stop
    world.settle()
    assert world.status.phase == "Running"


def test_an_engine_killed_while_halting_goes_on_at_its_next_run(make_world, actions_of):
    world = make_world(workers=1, backups=0).up()
    world.stop_requested = True
    world.look()
    world.stop_requested = False
    for id_ in world.alive():
        world.vanish(id_)
    world.replicas.clear()
    made = world.look()
    assert actions_of(made) == ["Start aggregator-2", "Start worker-0-2"]


def test_a_suspended_job_that_is_then_stopped_says_so(make_world):
    world = make_world(suspend=True)
    world.look()
    world.stop_requested = True
    since = world.condition("Suspended").last_transition_time
    world.now += 5
    world.look()
    assert world.condition("Suspended").reason == "Stopped"
    assert world.condition("Suspended").last_transition_time == since
