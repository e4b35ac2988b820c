"""The trace as a file: whole lines or none, whatever was killed while writing."""

import json

import pytest

from backupsync.trace import (
    Ended,
    Evaluation,
    Gradient,
    Header,
    Iteration,
    Membership,
    Resized,
    Resumed,
    TraceError,
    TraceWriter,
    read_trace,
)

HEADER = Header(job="digits", uid="u", manifest={"kind": "x"}, started=1.0, initial_digest="ab", threads=1)
LINES = [
    HEADER,
    Membership(at=0.1, iteration=0, rank=1, attempt=1, event="joined"),
    Gradient(at=0.5, iteration=0, rank=1, attempt=1, ticket=0, outcome="accepted", place=0, loss=2.5),
    Gradient(at=0.6, iteration=0, rank=2, attempt=1, ticket=1, outcome="dropped", reason="late"),
    Iteration(at=0.5, iteration=0, required=1, accepted=1, live=2, seconds=0.5, examples=32),
    Resized(at=0.7, iteration=1, required=2, backups=0),
    Resumed(at=9.0, epoch=2, iteration=1, next_ticket=2),
    Evaluation(at=9.5, iteration=1, rank=1, metrics={"accuracy": 0.5}),
    Ended(at=10.0, iteration=1, outcome="Succeeded", reason="Completed"),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "trace.jsonl"


def write(path, lines):
    with TraceWriter(path) as writer:
        for line in lines:
            writer.write(line)


def test_every_kind_of_line_is_read_back_as_it_was_written(path):
    write(path, LINES)
    assert list(read_trace(path)) == LINES
    kinds = [json.loads(line)["kind"] for line in path.read_text().splitlines()]
    assert set(kinds) == {
        "header", "membership", "gradient", "iteration", "resized", "resumed", "evaluation", "ended",
    }  # fmt: skip


def test_what_was_flushed_can_be_read_while_the_run_goes_on(path):
    with TraceWriter(path) as writer:
        writer.write(HEADER)
        writer.flush()
        assert list(read_trace(path)) == [HEADER]


def test_a_successor_appends(path):
    write(path, LINES[:2])
    write(path, LINES[2:])
    assert list(read_trace(path)) == LINES


@pytest.mark.parametrize("torn", [b'{"kind":"grad', b"{", b"\xff", b"\x00\x00"])
def test_a_torn_last_line_is_not_read_and_cut_off_by_the_successor(path, torn):
    write(path, LINES[:3])
    with path.open("ab") as file:
        file.write(torn)
    assert list(read_trace(path)) == LINES[:3]
    write(path, LINES[3:])
    assert list(read_trace(path)) == LINES


def test_a_file_of_a_single_torn_line_becomes_empty(path):
    path.parent.mkdir()
    path.write_bytes(b'{"kind"')
    TraceWriter(path).close()
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    "broken", [b"nonsense\n", b'{"kind":"other"}\n', b'{"kind":"ended"}\n', b"\xff\n", b"\n"]
)
def test_a_line_that_is_none_is_named(path, broken):
    write(path, LINES[:1])
    with path.open("ab") as file:
        file.write(broken)
    with pytest.raises(TraceError, match=r"trace\.jsonl:2: is no line of a trace"):
        list(read_trace(path))


def test_a_field_that_nobody_knows_is_refused(path):
    path.parent.mkdir()
    path.write_text('{"kind":"resized","at":1,"iteration":1,"required":1,"backups":1,"colour":"red"}\n')
    with pytest.raises(TraceError, match="colour"):
        list(read_trace(path))


def test_another_version_is_refused(path):
    path.parent.mkdir()
    text = '{"kind":"header","trace_version":2,"job":"a","uid":"u","manifest":{},"started":0,'
    path.write_text(text + '"initial_digest":"","threads":1}\n')
    with pytest.raises(TraceError, match="trace_version is 2, this version reads 1"):
        list(read_trace(path))


def test_a_file_that_is_absent_is_named(path):
    with pytest.raises(TraceError, match="cannot be read"):
        list(read_trace(path))
