"""Starting a job, telling its aggregator what is wanted, and letting N and b change while it runs."""

from msgspec import structs

from backupsync.control import DesiredMember
from backupsync.lifecycle.types import JobStatus, MemberIntent, Replica, ReplicaId


def pairs(status: JobStatus) -> list[tuple[int, int]]:
    return [(m.rank, m.attempt) for m in status.members]


def test_a_new_job_starts_its_aggregator_and_then_ranks_0_to_n_plus_b_minus_1(make_world, actions_of):
    world = make_world(workers=2, backups=1)
    made = world.look()
    assert actions_of(made) == [
        "Start aggregator-1",
        "Start worker-0-1",
        "Start worker-1-1",
        "Start worker-2-1",
    ]
    assert made.status.phase == "Pending"
    assert made.status.start_time == world.now
    assert made.requeue_after is None, "nothing is due before something happens"


def test_members_are_in_the_status_before_they_are_started(make_world):
    made = make_world(workers=2, backups=1).look()
    assert pairs(made.status) == [(0, 1), (1, 1), (2, 1)]
    assert made.status.aggregator_attempt == 1
    assert made.status.desired.members == tuple(DesiredMember(rank, 1) for rank in range(3))
    assert (made.status.desired.workers, made.status.desired.backup_workers) == (2, 1)


def test_a_start_lost_between_status_and_action_is_planned_again_and_not_minted_twice(make_world, actions_of):
    world = make_world()
    first = world.look(lose={0, 1, 2, 3})
    second = world.look(lose={1})
    assert actions_of(second) == actions_of(first)
    assert actions_of(world.look()) == ["Start worker-0-1"]
    assert world.look().actions == ()


def test_a_healthy_job_needs_nothing_and_says_so(make_world):
    made = make_world().up().look()
    assert made.actions == ()
    assert made.requeue_after is None
    assert made.explanation[-1] == "phase Running: 3 members are intended"


def test_growth_tells_the_aggregator_and_starts_only_the_new_ranks(make_world, actions_of):
    world = make_world(workers=2, backups=1).up()
    world.aggregation = {"workers": 3, "backupWorkers": 2}
    made = world.look()
    assert actions_of(made) == ["Tell", "Start worker-3-1", "Start worker-4-1"]
    assert made.status.desired.generation == 2
    assert world.announced()[-1] == "Scaled"
    world.settle()
    assert world.condition("Ready").status == "True"


def test_shrinking_tells_the_aggregator_first_and_stops_the_highest_ranks_after_its_echo(
    make_world, actions_of
):
    world = make_world(workers=3, backups=1).up()
    world.aggregation = {"workers": 2, "backupWorkers": 0}
    told = world.look(lose={0, 1})
    assert actions_of(told) == ["Tell"]
    assert told.status.desired.workers == 2
    assert "worker 3 (attempt 1) stays until the aggregator has let it go" in told.explanation
    assert actions_of(world.look()) == ["Tell"], "repeated until it is echoed"
    assert actions_of(world.look()) == ["Stop worker-2-1", "Stop worker-3-1"]
    world.settle()
    assert [id_.rank for id_ in world.alive() if id_.role == "worker"] == [0, 1]


def test_shrinking_without_an_aggregator_stops_the_surplus_at_once(make_world, actions_of):
    world = make_world(workers=2, backups=1)
    world.look()
    world.aggregation = {"workers": 1, "backupWorkers": 1}
    assert actions_of(world.look()) == ["Stop worker-2-1"]


def test_a_rank_that_comes_back_after_shrinking_gets_a_new_attempt(make_world, actions_of):
    world = make_world(workers=2, backups=1).up()
    world.aggregation = {"workers": 2, "backupWorkers": 0}
    world.look()
    world.aggregation = {"workers": 2, "backupWorkers": 1}
    made = world.look()
    assert pairs(made.status) == [(0, 1), (1, 1), (2, 2)]
    assert actions_of(made) == ["Tell", "Stop worker-2-1", "Start worker-2-2"]


def test_changing_only_n_restarts_nobody(make_world, actions_of):
    world = make_world(workers=2, backups=1).up()
    world.aggregation = {"workers": 1, "backupWorkers": 2}
    assert actions_of(world.look()) == ["Tell"]
    assert world.look().actions == ()


def test_the_desired_state_is_repeated_until_it_is_echoed(make_world, actions_of):
    world = make_world().up()
    world.aggregation = {"workers": 1, "backupWorkers": 2}
    for _ in range(3):
        made = world.look(lose={0, 1})
        assert actions_of(made) == ["Tell"]
        assert made.status.desired.generation == 2, "repeating mints nothing"
        assert made.requeue_after == 2.0
    assert "Scaled" not in world.announced(), "announced once, and that announcement was among the lost"


def test_an_aggregator_whose_replica_is_gone_is_told_nothing_more(make_world, actions_of):
    world = make_world(workers=1, backups=0).up()
    last = world.aggregator
    world.exit(world.epoch, 1)
    world.aggregator = last
    world.status = structs.replace(world.status, phase="Failed", completion_time=world.now)
    assert "Tell" not in actions_of(world.look())


def test_a_new_term_of_the_engine_is_told_under_a_later_generation(make_world, actions_of):
    world = make_world().up()
    world.term = 4
    made = world.look()
    assert actions_of(made) == ["Tell"]
    assert made.status.desired.order == (4, 2)
    assert world.look().actions == ()


def test_a_status_older_than_what_the_aggregator_applied_overtakes_it(make_world, actions_of):
    world = make_world().up()
    world.aggregator.desired = structs.replace(world.aggregator.desired, generation=9)
    made = world.look()
    assert actions_of(made) == ["Tell"]
    assert made.status.desired.generation == 10
    assert world.look().actions == ()
    world.aggregation = {"workers": 1, "backupWorkers": 2}
    assert world.look().status.desired.generation == 11


def test_the_answer_of_an_earlier_epoch_counts_for_nothing(make_world):
    world = make_world().up()
    world.status = structs.replace(world.status, aggregator_attempt=2, aggregator_seen=False)
    world.finish("Succeeded")
    assert world.look().status.phase == "Running"


def test_a_number_is_never_minted_that_a_replica_already_bears(make_world):
    world = make_world(workers=1, backups=0)
    for role in ("worker", "aggregator"):
        world.replicas[ReplicaId(role, 0, 7)] = exited(role, 7)
    made = world.look()
    assert pairs(made.status) == [(0, 8)]
    assert made.status.aggregator_attempt == 8


def test_members_stay_in_order_of_rank_and_attempt(make_world):
    world = make_world(workers=2, backups=1).up()
    assert [MemberIntent(rank=r, attempt=1, seen=True) for r in range(3)] == list(world.look().status.members)


def exited(role: str, attempt: int) -> Replica:
    return Replica(id=ReplicaId(role, 0, attempt), phase="Exited", exit_code=1)
