"""How a process learns who it is, and where it runs."""

import pytest

from backupsync.errors import BackupSyncError
from backupsync.launch import AggregatorLaunch, WorkerLaunch, from_environment, to_environment

AGGREGATOR = {"epoch": 1, "desired": {}}
COMMON = {"job": "digits", "uid": "u", "manifest": {}, "key_file": "/key", "endpoint": "tcp://h:1"}


def worker(**more):
    return WorkerLaunch(**(COMMON | {"rank": 1, "attempt": 2} | more))


def read(launch, **variables):
    return from_environment(type(launch), {**to_environment(launch), **variables})


@pytest.mark.parametrize(
    "launch",
    [worker(restart_in_place="exec", scratch_directory="/s"), AggregatorLaunch(**COMMON, **AGGREGATOR)],
)
def test_a_launch_survives_the_way_through_the_environment(launch):
    assert read(launch) == launch


def test_the_pod_names_its_node():
    assert read(worker(), BACKUPSYNC_NODE="node-7").node == "node-7"
    assert read(worker(node="local-1"), BACKUPSYNC_NODE="").node == "local-1"
    assert read(worker(node="local-1")).node == "local-1"


def test_the_higher_start_counts():
    assert read(worker(start=1), BACKUPSYNC_START="3").start == 3
    assert read(worker(start=4), BACKUPSYNC_START="3").start == 4


@pytest.mark.parametrize("start", ["x", "-1", "1.5", ""])
def test_a_start_that_is_no_number_is_told(start):
    with pytest.raises(BackupSyncError, match=r"BACKUPSYNC_START = '.*': must be a whole number"):
        read(worker(), BACKUPSYNC_START=start)
