"""What a worker writes and measures: one line per event, and time that adds up."""

import json
import logging
import sys
import time

import pytest

from backupsync import logs
from backupsync_worker import timing
from backupsync_worker.timing import Stopwatch, Usage


def record(message="hello %s", *args, error=None):
    info = None
    if error is not None:
        try:
            raise error
        except type(error):
            info = sys.exc_info()
    return logging.LogRecord("backupsync_worker.x", logging.WARNING, __file__, 1, message, args, info)


def test_text_says_when_how_bad_who_and_what_on_one_line():
    line = logs.formatter("text", "worker", {"job": "digits", "rank": 3, "attempt": 2}).format(
        record("lost %s", "it")
    )
    assert line.split(" ", 1)[1] == "WARNING worker 3 (attempt 2) of digits: lost it"


def test_text_of_a_role_without_rank_names_the_role():
    line = logs.formatter("text", "aggregator", {"job": "digits"}).format(record("up"))
    assert line.endswith("WARNING aggregator of digits: up")


def test_json_holds_every_field_and_the_traceback_on_one_line():
    line = logs.formatter("json", "worker", {"job": "d", "rank": 3}).format(
        record("bad", error=KeyError("label"))
    )
    assert "\n" not in line
    said = json.loads(line)
    assert (said["level"], said["message"], said["job"], said["rank"]) == ("WARNING", "bad", "d", 3)
    assert "KeyError: 'label'" in said["traceback"]
    assert said["time"].endswith("+00:00")


@pytest.fixture
def root_logger():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield root
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


def test_logs_go_to_whatever_stderr_is_now(root_logger, capsys):
    root_logger.handlers.clear()
    logs.configure("text", "worker", job="d", rank=0, attempt=0)
    logging.getLogger("x").info("seen")
    logging.getLogger("x").debug("unseen")
    assert capsys.readouterr().err.endswith("INFO worker 0 of d: seen\n")


def test_whatever_is_neither_data_nor_push_is_compute(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    watch = Stopwatch(began=100.0)
    now[0] = 101.0
    with watch.measure("data"):
        now[0] = 103.0
    with pytest.raises(KeyError), watch.measure("push"):
        now[0] = 107.0
        raise KeyError
    now[0] = 115.0
    taken = watch.timing()
    assert (taken.data, taken.push, taken.compute) == (2.0, 4.0, 9.0)


def test_cpu_time_is_of_this_gradient_alone(monkeypatch):
    usages = iter([Usage(10.0, 4.0, 1.0), Usage(12.0, 4.5, 1.0)])
    monkeypatch.setattr(timing.Usage, "now", staticmethod(lambda: next(usages)))
    taken = Stopwatch(_usage=timing.Usage.now()).timing()
    assert (taken.cpu, taken.run_queue, taken.throttled) == (2.0, 0.5, 0.0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("usage_usec 5\nthrottled_usec 2500000\n", 2.5),
        ("nr_periods 1\nthrottled_time 1500000000\n", 1.5),
        ("usage_usec 5\n", 0.0),
        ("garbage\n", 0.0),
    ],
)
def test_throttling_is_read_from_both_cgroup_versions(tmp_path, monkeypatch, text, seconds):
    stat = tmp_path / "cpu.stat"
    stat.write_text(text)
    monkeypatch.setattr(timing, "_cpu_stat", lambda: stat)
    assert timing._throttled_seconds() == seconds


def test_what_the_kernel_does_not_say_counts_as_nothing(monkeypatch):
    monkeypatch.setattr(timing, "_cpu_stat", lambda: None)
    assert timing._throttled_seconds() == 0.0
    assert timing._run_queue_seconds() >= 0.0
