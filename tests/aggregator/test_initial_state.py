"""The job's first parameters come from the first member, and are a checkpoint before anything is trained."""

import json

import pytest

from backupsync.trace import Header, read_trace
from backupsync.wire import messages as wire


def test_every_member_is_sent_the_first_ones_parameters(start, join):
    aggregator = start()
    first, second = join(aggregator, 0), join(aggregator, 1)
    for peer in (first, second):
        peer.assigned()
        assert bytes(peer.sections["moving"]) == first.initial_sections()[0]


def test_checkpoint_0_stands_before_the_first_ticket_is_handed_out(start, join, tmp_path):
    aggregator = start(checkpoint_directory=str(tmp_path / "out"))
    peers = [join(aggregator, rank) for rank in range(2)]
    peers[0].assigned()
    (document,) = (tmp_path / "out").glob("checkpoint-00000000*/checkpoint.json")
    progress = json.loads(document.read_text())["progress"]
    assert progress["iteration"] == progress["examples"] == 0
    assert progress["batches_per_epoch"] == 100


def test_ready_said_before_there_are_parameters_is_remembered(start, join):
    aggregator = start()
    first = join(aggregator, 0, joined=False)
    first.prove()
    first.expect(wire.Welcome)
    second = join(aggregator, 1)
    second.ready()
    first.give_initial()
    assert second.expect(wire.Assign).iteration == 0


def test_when_the_first_member_leaves_before_it_gave_them_the_next_is_asked(start, join):
    aggregator = start()
    first = join(aggregator, 0, joined=False)
    first.prove()
    assert first.expect(wire.Welcome).send_initial
    second = join(aggregator, 1)
    first.send(wire.Goodbye("bye"))
    assert second.expect(wire.Refused).code == wire.RefusalCode.NOT_JOINED
    assert second.join().send_initial


def test_a_broken_initial_state_is_refused_and_another_member_asked(start, join):
    aggregator = start()
    first = join(aggregator, 0, joined=False)
    first.prove()
    first.expect(wire.Welcome)
    second = join(aggregator, 1)
    first.send(wire.InitialDone(b"d" * 32, None))
    assert first.expect(wire.Refused).code == wire.RefusalCode.MALFORMED
    assert second.expect(wire.Refused).code == wire.RefusalCode.NOT_JOINED
    assert second.join().send_initial
    assert not first.join().send_initial


@pytest.mark.parametrize(
    ("message", "payload"),
    [
        (wire.Initial("moving", 0), b"x" * 4096),
        (wire.Initial("moving", 0), None),
        (wire.InitialDone(b"d" * 32, None), None),
    ],
)
def test_an_initial_state_nobody_asked_for_is_refused(start, join, message, payload):
    aggregator = start()
    join(aggregator, 0)
    second = join(aggregator, 1)
    second.send(message, payload)
    assert second.expect(wire.Refused).code == wire.RefusalCode.MALFORMED


def test_the_trace_begins_with_the_digest_of_the_first_parameters_and_the_versions(start, join, tmp_path):
    aggregator = start()
    join(aggregator, 0)
    aggregator.until_status(lambda s: s.members, "the first member")
    aggregator.stop()
    header = next(read_trace(tmp_path / "trace.jsonl"))
    assert isinstance(header, Header)
    assert len(header.initial_digest) == 64
    assert set(header.versions) == {"backupsync", "python", "torch", "numpy", "cpu_capability"}
    assert header.manifest["spec"]["aggregation"]["workers"] == 2


def test_frozen_tensors_are_sent_once_per_connection(start, join, model):
    aggregator = start()
    peers = [join(aggregator, rank, entries=model(frozen=True)) for rank in range(2)]
    for _ in range(2):
        for peer, assign in [(p, p.assigned()) for p in peers]:
            peer.answer(assign)
    for peer in peers:
        assert bytes(peer.sections["frozen"]) == b"\1" * 64
        sent = [m for m in peer.said if isinstance(m, wire.Parameters) and m.section == "frozen"]
        assert len(sent) == 1


def test_a_manifest_whose_optimizer_does_not_exist_ends_the_job_as_bad_input(start, join):
    aggregator = start({"training": {"optimizer": {"name": "Nonesuch", "lr": 0.1}}})
    join(aggregator, 0)
    assert aggregator.exit_code() == 65
