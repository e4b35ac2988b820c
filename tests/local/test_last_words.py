"""What the end of a log says about why a process ended."""

import json

from backupsync.exits import ExitKind
from backupsync.lifecycle.types import Replica, ReplicaId
from backupsync.local.last_words import Sayings, last_words

TRACE = 'Traceback (most recent call last):\n  File "p.py", line 1, in f\nValueError: x'


def test_the_last_traceback_says_most():
    log = f"07:15:02.113 INFO worker 3 of digits: joined\n07:15:03.000 ERROR worker: raised\n{TRACE}\n"
    assert last_words(log) == TRACE


def test_a_chained_traceback_is_kept_whole():
    chained = f"{TRACE}\n\nDuring handling of the above exception, another exception occurred:\n\n{TRACE}"
    assert last_words(f"before\n{chained}\n") == chained


def test_without_a_traceback_the_last_error_speaks():
    log = (
        "07:15:02.113 INFO worker 3 of digits: joined\n07:15:03.000 ERROR worker 3 of digits: no class Foo\n"
    )
    assert last_words(log) == "no class Foo"


def test_without_an_error_a_few_last_lines_do():
    assert last_words("".join(f"{n}\n" for n in range(100))) == "95\n96\n97\n98\n99"


def test_json_logs_are_read_like_text():
    records = [
        {"level": "INFO", "message": "joined"},
        {"level": "ERROR", "message": "raised", "traceback": TRACE},
    ]
    assert last_words("\n".join(map(json.dumps, records))) == TRACE


def test_words_of_many_lines_are_said_whole_once_and_in_short_elsewhere():
    sayings = Sayings()
    replica = Replica(
        id=ReplicaId("worker", 3, 1), phase="Exited", exit=ExitKind.RETRYABLE, exit_code=1, message=TRACE
    )
    sayings.add(replica)
    assert sayings.shorten(f"worker 3 crashed: {TRACE}") == "worker 3 crashed: ValueError: x"
