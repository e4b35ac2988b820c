"""The inbox: parameters put together, and everything that is repeated, foreign or out of order left out."""

from hypothesis import given
from hypothesis import strategies as st

from backupsync.wire.messages import AbortEvaluation, Assign, Evaluate, Parameters, Stale
from backupsync.wire.schema import chunks
from backupsync_worker.connection.inbox import Inbox, Section

TOTAL = 100


def part(iteration, offset, size, total=TOTAL, epoch=1):
    return Parameters(epoch, iteration, "moving", offset, total), bytes([iteration % 256]) * size


def assign(iteration, ticket, to_the_end=False, epoch=1):
    return Assign(epoch, iteration, ticket, None, to_the_end)


def inbox():
    return Inbox(1, TOTAL, 0)


def test_a_section_in_one_frame_is_kept_without_a_copy():
    section, payload = Section(TOTAL), memoryview(bytes(TOTAL))
    section.take(part(3, 0, TOTAL)[0], payload)
    assert section.bytes_of(3) is payload


@given(st.integers(1, TOTAL))
def test_a_section_is_whole_exactly_when_its_last_byte_has_come(size):
    box = inbox()
    for offset, length in chunks(TOTAL, size):
        assert box.holds == -1
        box.take(*part(2, offset, length))
    assert box.holds == 2
    assert bytes(box.section("moving", 2)) == b"\2" * TOTAL


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 120), st.integers(0, 120)), max_size=30))
def test_no_sequence_of_chunks_yields_a_section_mixed_of_two_iterations(sequence):
    box = inbox()
    for iteration, offset, size in sequence:
        box.take(*part(iteration, offset, size))
        if (held := box.section("moving", box.holds)) is not None:
            assert bytes(held) == bytes([box.holds]) * TOTAL


def test_a_new_version_on_its_way_voids_the_one_before():
    box = inbox()
    box.take(*part(1, 0, TOTAL))
    box.take(*part(2, 0, 50))
    assert box.holds == -1
    box.take(*part(2, 50, 50))
    assert box.holds == 2


def test_sections_of_another_size_or_epoch_are_left_out():
    box = inbox()
    box.take(*part(1, 0, TOTAL, total=TOTAL + 1))
    box.take(*part(1, 0, TOTAL, epoch=2))
    assert box.holds == -1


def test_an_empty_section_is_never_awaited():
    assert inbox().frozen() is None


def test_the_newest_assignment_counts_and_a_repeated_one_does_not():
    box = inbox()
    box.take(assign(1, 4), None)
    box.take(assign(2, 5), None)
    assert box.begin().ticket == 5
    box.take(assign(2, 5), None)
    assert box.assign is None
    box.take(assign(2, 6), None)
    assert box.assign.ticket == 6


def test_an_assignment_of_another_epoch_is_left_out():
    box = inbox()
    box.take(assign(1, 4, epoch=2), None)
    assert box.assign is None


def test_stale_is_every_iteration_up_to_the_one_named_unless_it_runs_to_the_end():
    box = inbox()
    box.take(Stale(3), None)
    box.take(Stale(1), None)
    assert [box.is_stale(assign(i, 0)) for i in (2, 3, 4)] == [True, True, False]
    assert not box.is_stale(assign(2, 0, to_the_end=True))


def test_an_evaluation_called_off_is_forgotten_and_a_later_one_is_not():
    box = inbox()
    box.take(Evaluate(4, averaged=True), None)
    box.take(AbortEvaluation(4), None)
    assert box.evaluate is None
    box.take(Evaluate(5, averaged=True), None)
    box.take(AbortEvaluation(4), None)
    assert box.evaluate is not None
