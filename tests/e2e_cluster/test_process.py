import json
import os

import pytest

from cluster import process
from cluster.clock import Clock
from cluster.errors import ClusterError, EndedError
from cluster.shell import feed, run, until


@pytest.fixture
def record(tmp_path):
    file = tmp_path / "run" / "sleeper.json"
    yield file
    process.stop(file, grace=0)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "sleeper.log"


def test_a_process_is_found_by_its_record_until_it_is_stopped(record, log):
    pid = process.spawn(["sleep", "600"], record, log, [], child=False)
    assert process.recorded(record) == pid
    assert os.getsid(pid) == pid
    process.stop(record)
    assert not process.alive(pid)
    assert process.recorded(record) is None


def test_of_a_command_that_forks_the_child_is_recorded(record, log):
    pid = process.spawn(["sh", "-c", "sleep 600; true"], record, log, [], child=True)
    assert run(["ps", "-o", "comm=", "-p", str(pid)]).strip() == "sleep"
    process.stop(record)
    assert not process.alive(pid)


def test_a_process_that_does_not_listen_is_ended_all_the_same(record, log):
    stubborn = ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.05; done"]
    pid = process.spawn(stubborn, record, log, [], child=False)
    until(lambda: "deaf" in log.read_text(), "the trap")
    process.stop(record, grace=0.2)
    assert not process.alive(pid)


def test_a_pid_that_another_process_got_since_is_left_alone(record, log):
    pid = process.spawn(["sleep", "600"], record, log, [], child=False)
    mine = record.read_text()
    record.write_text(json.dumps({"pid": pid, "started": json.loads(mine)["started"] - 1}))
    assert process.recorded(record) is None
    process.stop(record)
    assert process.alive(pid)
    record.write_text(mine)


def test_what_a_process_says_is_in_its_log(record, log):
    process.spawn(["sh", "-c", "echo out; echo err >&2"], record, log, [], child=False)
    until(lambda: process.recorded(record) is None, "the process to end")
    assert log.read_text() == "out\nerr\n"


def test_a_command_that_fails_says_why():
    with pytest.raises(ClusterError, match="ended with 3: no luck"):
        run(["sh", "-c", "echo no luck >&2; exit 3"])
    with pytest.raises(ClusterError, match="not on this machine"):
        run(["no-such-program"])
    assert run(["sh", "-c", "echo out; exit 3"], check=False) == "out\n"


def test_a_command_is_fed():
    feed(["sh", "-c", 'test "$(cat)" = bread'], lambda pipe: pipe.write(b"bread"))
    with pytest.raises(ClusterError, match="ended with 4: full"):
        feed(["sh", "-c", "echo full; exit 4"], lambda pipe: pipe.write(b"x" * 1_000_000))
    with pytest.raises(ClusterError, match="ended with -9"):
        feed(["sleep", "600"], lambda pipe: None, timeout=0.1)


def test_waiting_in_vain_says_for_what_and_what_was_wrong():
    def refused():
        raise OSError("connection refused")

    with pytest.raises(ClusterError, match="in vain for the moon: connection refused"):
        until(refused, "the moon", timeout=0)


def test_waiting_for_a_process_that_ended_ends(record, log):
    with pytest.raises(EndedError, match="sleeper ended at once: no luck"):
        process.spawn(["sh", "-c", "echo no luck"], record, log, [], child=True)


def test_the_clock_tells_each_part():
    clock = Clock()
    with clock.part("bread"), clock.part("butter"):
        pass
    assert [line.split()[0] for line in clock.table().splitlines()] == ["bread", "butter", "together"]
