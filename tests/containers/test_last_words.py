"""What a container leaves for the kubelet: the end of a traceback, or how the job ended."""

import pytest

from backupsync.control import AggregatorStatus, MemberStatus, Refusal
from backupsync.termination import MAX_BYTES, VARIABLE, decode_ending, encode_ending, tail, write_last_words


def status(**more):
    fields = {"job": "digits", "uid": "u", "epoch": 2, "phase": "Succeeded", "reason": "Completed"}
    return AggregatorStatus(**(fields | {"iteration": 400, "checkpoint_iteration": 400} | more))


def test_outside_a_container_nothing_is_written_and_nothing_made(tmp_path):
    assert not write_last_words("words", {VARIABLE: str(tmp_path / "log")})
    assert not list(tmp_path.iterdir())


def test_later_words_replace_earlier_ones(tmp_path):
    log = tmp_path / "log"
    log.touch()
    assert write_last_words("the first, which is longer", {VARIABLE: str(log)})
    assert write_last_words("the last\n", {VARIABLE: str(log)})
    assert log.read_text() == "the last"


def test_a_directory_in_its_place_is_no_reason_to_fail(tmp_path):
    assert not write_last_words("words", {VARIABLE: str(tmp_path)})


def test_of_a_long_traceback_the_end_is_kept_from_a_line_on(tmp_path):
    log = tmp_path / "log"
    log.touch()
    lines = [f'  File "program.py", line {n}, in f' for n in range(500)]
    write_last_words("\n".join([*lines, "ValueError: the end"]), {VARIABLE: str(log)})
    text = log.read_text()
    assert len(text.encode()) <= MAX_BYTES
    assert text.startswith('...\n  File "program.py", line ')
    assert text.endswith(", line 499, in f\nValueError: the end")


@pytest.mark.parametrize("text", ["é" * 5000, "x" * 5000, "a\n" + "é" * 5000, "\ud800" * 5000 + "end"])
def test_whatever_is_said_fits_and_is_text(text):
    kept = tail(text)
    assert 4000 < len(kept.encode()) <= MAX_BYTES
    assert kept[-1] in "éxd"


def test_short_words_are_kept_whole():
    assert tail(" one\ntwo\n") == "one\ntwo"


def test_the_end_of_a_job_can_be_read_back():
    ended = status(evaluation={"accuracy": 0.97}, metrics={"a": 1.0}, loss=0.5)
    assert decode_ending(encode_ending(ended)) == ended


def test_members_and_refusals_are_left_out():
    member = MemberStatus(rank=0, attempt=1, start=0, state="Live", phase="push")
    ended = status(members=(member,), refusals=(Refusal("peer", "WrongKey", "no"),))
    assert decode_ending(encode_ending(ended)) == status()


@pytest.mark.parametrize(
    "more",
    [
        {"metrics": {f"name-{n}" * 10: 1 / 3 for n in range(64)}},
        {"evaluation": {f"name-{n}" * 10: 1 / 3 for n in range(64)}},
        {"evaluation_problem": "x" * 5000},
        {"message": "x" * 5000},
        {"message": "\x01" * 5000, "metrics": {"x" * 4096: 1.0}, "evaluation_problem": "x" * 5000},
    ],
)
def test_the_end_of_a_job_always_fits_and_says_the_same(more):
    text = encode_ending(status(**more))
    assert len(text.encode()) <= MAX_BYTES
    read = decode_ending(text)
    assert (read.phase, read.reason, read.iteration, read.epoch) == ("Succeeded", "Completed", 400, 2)
    assert more.get("message", "").endswith(read.message)


@pytest.mark.parametrize("text", ["", "Traceback", "{}", "[1]", '{"phase": "Succeeded"}', "[" * 10000])
def test_other_words_are_no_end_of_a_job(text):
    assert decode_ending(text) is None
