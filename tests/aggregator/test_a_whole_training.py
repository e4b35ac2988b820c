"""A job with N=2, b=1 from its first HELLO to its model, with scripted workers on a quadratic."""

import numpy as np
from safetensors.numpy import load_file

from backupsync.trace import Gradient, Header, Iteration, read_trace
from backupsync.wire import messages as wire


def test_two_of_three_gradients_make_an_update_and_the_late_one_is_told_dropped(start, join, tmp_path):
    aggregator = start(checkpoint_directory=str(tmp_path / "out"))
    peers = [join(aggregator, rank) for rank in range(3)]
    target = np.linspace(-1.0, 1.0, 3000, dtype=np.float32)
    for iteration in range(3):
        assigns = [peer.assigned() for peer in peers]
        assert {a.iteration for a in assigns} == {iteration}
        assert len({a.ticket for a in assigns}) == 3
        first, second, late = ((iteration + k) % 3 for k in range(3))
        assert peers[first].answer(assigns[first]) == wire.Verdict(
            iteration, assigns[first].ticket, wire.Outcome.ACCEPTED, place=0
        )
        assert peers[second].answer(assigns[second]).place == 1
        verdict = peers[late].answer(assigns[late])
        assert verdict.outcome is wire.Outcome.DROPPED
        assert verdict.reason is wire.Reason.LATE or (iteration == 2 and verdict.reason is wire.Reason.ENDED)
    assert {peer.go_home().why for peer in peers} == {"succeeded"}
    status = aggregator.until_status(lambda s: s.phase == "Succeeded", "success")
    assert (status.iteration, status.examples) == (3, 24)
    assert aggregator.stop() == 0
    model = load_file(tmp_path / "out" / "model.safetensors")
    np.testing.assert_allclose(model["w"], target * (1 - 0.5**3), rtol=1e-6)


def test_the_trace_tells_every_decision(start, join, tmp_path):
    aggregator = start({"training": {"iterations": 2}})
    peers = [join(aggregator, rank) for rank in range(2)]
    for _ in range(2):
        assigns = [peer.assigned() for peer in peers]
        for peer, assign in zip(peers, assigns, strict=True):
            peer.answer(assign)
    peers[0].go_home()
    aggregator.until_status(lambda s: s.phase == "Succeeded", "success")
    aggregator.stop()
    lines = list(read_trace(tmp_path / "trace.jsonl"))
    assert isinstance(lines[0], Header)
    assert lines[0].batches_per_epoch == 100
    assert [line.place for line in lines if isinstance(line, Gradient)] == [0, 1, 0, 1]
    updates = [line for line in lines if isinstance(line, Iteration)]
    assert [(u.iteration, u.accepted, u.examples) for u in updates] == [(0, 2, 8), (1, 2, 16)]
    assert all(u.apply_seconds > 0 and u.learning_rate == 0.5 for u in updates)


def test_what_a_member_still_sends_after_it_was_sent_home_is_no_fault(start, join):
    aggregator = start({"training": {"iterations": 1}})
    peers = [join(aggregator, rank) for rank in range(3)]
    assigns = [peer.assigned() for peer in peers]
    for peer, assign in list(zip(peers, assigns, strict=True))[:2]:
        peer.answer(assign)
    peers[0].go_home()
    peers[2].push(assigns[2])
    peers[2].commit(assigns[2])
    peers[2].send(peers[2].hello)
    peers[2].expect(wire.Challenge)
    assert not [m for m in peers[2].said if isinstance(m, wire.Refused)]
    assert aggregator.refused("malformed") == aggregator.refused("not-joined") == 0
