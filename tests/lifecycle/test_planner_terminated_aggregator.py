"""An aggregator that ended by SIGTERM kept its workers: they go on under the next epoch."""

from msgspec import structs

from backupsync.control import TERMINATED


def dismissed(world):
    return [member.dismissed for member in world.status.members]


def terminate(world):
    """The aggregator ends by SIGTERM; its last status is known, as a kubelet hands it on."""
    world.finish("Suspended", TERMINATED)
    final = world.aggregator.status()
    id_ = world.epoch
    world.exit(id_, 0)
    world.replicas[id_] = structs.replace(world.replicas[id_], final=final)


def test_its_members_stay_and_none_is_started_anew(make_world, actions_of):
    world = make_world(workers=1, backups=1).up()
    terminate(world)
    made = world.look()
    assert actions_of(made) == ["Start aggregator-2"]
    assert dismissed(world) == [False, False]
    world.settle()
    assert world.status.phase == "Running"
    assert [(m.rank, m.attempt) for m in world.status.members] == [(0, 1), (1, 1)]


def test_where_its_last_word_is_not_known_who_joins_the_next_epoch_was_not_sent_home(make_world, actions_of):
    world = make_world(workers=1, backups=1).up()
    world.exit(world.epoch, 0)
    world.look()
    assert dismissed(world) == [True, True]
    world.settle()
    assert dismissed(world) == [False, False]
    world.exit(world.worker(0), 0)
    assert actions_of(world.look()) == [], "it may be the job's end: it is waited for"


def test_who_has_not_joined_the_next_epoch_may_still_have_been_sent_home(make_world):
    world = make_world(workers=1, backups=1).up()
    world.exit(world.epoch, 0)
    world.look()
    world.freeze(world.worker(1))
    world.settle()
    assert dismissed(world) == [False, True]
