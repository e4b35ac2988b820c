"""The modes of aggregation and the ways a job ends, as seen from the wire."""

import numpy as np
import pytest

from backupsync.trace import Ended, Evaluation, Gradient, read_trace
from backupsync.wire import messages as wire

ASYNC = {
    "aggregation": {"mode": "Async", "backupWorkers": 0, "maxStaleness": 1},
    "training": {"iterations": 4},
}


def test_async_applies_every_gradient_at_once_and_drops_the_too_stale(start, join, desired_state, tmp_path):
    aggregator = start(ASYNC, desired_state((0, 1), (1, 1), backups=0))
    fast, slow = join(aggregator, 0), join(aggregator, 1)
    late = slow.assigned()
    for iteration in range(2):
        assign = fast.assigned()
        assert assign.iteration == iteration
        assert fast.answer(assign).outcome is wire.Outcome.ACCEPTED
    verdict = slow.answer(late)
    assert (verdict.outcome, verdict.reason) == (wire.Outcome.DROPPED, wire.Reason.STALE)
    one_behind = slow.assigned()
    fast.answer(fast.assigned())
    assert slow.answer(one_behind).outcome is wire.Outcome.ACCEPTED
    assert {peer.go_home().why for peer in (fast, slow)} == {"succeeded"}
    aggregator.stop()
    staleness = [
        line.applied_at - line.iteration
        for line in read_trace(tmp_path / "trace.jsonl")
        if isinstance(line, Gradient) and line.outcome == "accepted"
    ]
    assert staleness == [0, 0, 0, 1]


def test_gradients_that_stay_not_finite_end_the_job_as_diverged(start, join):
    aggregator = start({"aggregation": {"nonFiniteLimit": 3}})
    peer = join(aggregator, 0)
    join(aggregator, 1)
    assign = peer.assigned()
    for _ in range(3):
        peer.push(assign, np.full(3000, np.nan, dtype=np.float32).tobytes())
        peer.commit(assign, finite=False)
        verdict = peer.expect(wire.Verdict)
        assert (verdict.outcome, verdict.reason) == (wire.Outcome.REFUSED, wire.Reason.NOT_FINITE)
        following = peer.receive()
        if isinstance(following, wire.Leave):
            break
        assign = following
    assert following.why == "failed"
    status = aggregator.until_status(lambda s: s.phase == "Failed", "failure")
    assert status.reason == "Diverged"
    assert aggregator.stop() == 1


def test_what_a_worker_says_of_its_gradient_counts_as_not_finite_too(start, join):
    aggregator = start()
    peer = join(aggregator, 0)
    join(aggregator, 1)
    assign = peer.assigned()
    peer.push(assign)
    peer.commit(assign, finite=False)
    assert peer.expect(wire.Verdict).reason is wire.Reason.NOT_FINITE


def test_an_abandoned_batch_makes_room_for_the_next(start, join, tmp_path):
    aggregator = start({"training": {"iterations": 100}})
    peers = [join(aggregator, rank) for rank in range(3)]
    *firsts, late = [(peer, peer.assigned()) for peer in peers]
    for peer, assign in firsts:
        peer.answer(assign)
    peer, assign = late
    assert peer.expect(wire.Stale).iteration == 0
    peer.push(assign, skip=8192)
    peer.send(wire.Abandoned(assign.iteration, assign.ticket))
    assert peer.assigned().iteration == 1
    aggregator.stop()
    reasons = [g.reason for g in read_trace(tmp_path / "trace.jsonl") if isinstance(g, Gradient)]
    assert reasons[:3] == [None, None, "abandoned"]


@pytest.mark.parametrize("decay", [None, 0.5])
def test_the_final_parameters_or_their_average_are_evaluated_by_one_worker(start, join, decay, tmp_path):
    aggregator = start({"training": {"iterations": 2, "emaDecay": decay}})
    peers = [join(aggregator, rank) for rank in range(2)]
    for peer in peers:
        peer.metrics = {"accuracy": 0.75}
    for _ in range(2):
        for peer, assign in [(p, p.assigned()) for p in peers]:
            peer.answer(assign)
    assert {peer.go_home().why for peer in peers} == {"succeeded"}
    (said,) = (m for peer in peers for m in peer.said if isinstance(m, wire.Evaluate))
    assert said.averaged == (decay is not None)
    (sent,) = (bytes(peer.sections["ema"]) for peer in peers if "ema" in peer.sections)
    values = np.frombuffer(sent, dtype=np.float32)[:3000]
    target = np.linspace(-1.0, 1.0, 3000, dtype=np.float32)
    reached = np.max(values / target)
    assert reached == pytest.approx(0.75, rel=1e-5) if decay is None else 0.5 < reached < 0.75
    status = aggregator.until_status(lambda s: s.phase == "Succeeded", "success")
    assert status.evaluation == {"accuracy": 0.75}
    aggregator.stop()
    (line,) = (line for line in read_trace(tmp_path / "trace.jsonl") if isinstance(line, Evaluation))
    assert (line.iteration, line.metrics, line.averaged) == (2, {"accuracy": 0.75}, decay is not None)


def test_an_evaluation_without_a_finite_number_is_an_error_not_a_figure(start, join, tmp_path):
    aggregator = start({"training": {"iterations": 1}})
    peers = [join(aggregator, rank) for rank in range(2)]
    for peer, assign in [(p, p.assigned()) for p in peers]:
        peer.metrics = {"accuracy": float("nan")}
        peer.answer(assign)
    peers[0].go_home()
    status = aggregator.until_status(lambda s: s.phase == "Succeeded", "success")
    assert (status.evaluation, status.evaluation_problem) == ({}, "not finite: accuracy")
    aggregator.stop()
    (line,) = (line for line in read_trace(tmp_path / "trace.jsonl") if isinstance(line, Evaluation))
    assert (line.metrics, line.error) == ({}, "not finite: accuracy")


def test_suspend_lets_the_iteration_complete_writes_a_checkpoint_and_sends_everyone_home(
    start, join, desired_state, tmp_path
):
    aggregator = start(checkpoint_directory=str(tmp_path / "out"))
    peers = [join(aggregator, rank) for rank in range(2)]
    assigns = [peer.assigned() for peer in peers]
    aggregator.tell(desired_state(suspend=True, generation=2))
    aggregator.until_status(lambda s: s.applied == (0, 2), "the wish to suspend")
    for peer, assign in zip(peers, assigns, strict=True):
        assert peer.answer(assign).outcome is wire.Outcome.ACCEPTED
    assert {peer.expect(wire.Leave).why for peer in peers} == {"suspended"}
    status = aggregator.until_status(lambda s: s.phase == "Suspended", "suspension")
    assert (status.iteration, status.checkpoint_iteration) == (1, 1)
    assert aggregator.stop() == 0


def test_the_trace_ends_with_the_digest_of_the_final_parameters(start, join, tmp_path):
    import hashlib

    aggregator = start({"training": {"iterations": 1}})
    peers = [join(aggregator, rank) for rank in range(2)]
    for peer, assign in [(p, p.assigned()) for p in peers]:
        peer.answer(assign)
    peers[0].go_home()
    aggregator.stop()
    *_, last = read_trace(tmp_path / "trace.jsonl")
    assert isinstance(last, Ended)
    assert (last.outcome, last.reason, last.iteration) == ("Succeeded", "Completed", 1)
    assert last.wall_seconds > 0
    (sent,) = (bytes(peer.sections["ema"]) for peer in peers if "ema" in peer.sections)
    assert last.parameter_digest == hashlib.sha256(sent).hexdigest()


def test_buffers_travel_with_the_commit_and_come_back_as_their_mean(start, join, model):
    aggregator = start()
    peers = [join(aggregator, rank, entries=model(buffers=True)) for rank in range(2)]
    for peer, assign in [(p, p.assigned()) for p in peers]:
        rank = peer.hello.rank
        mean = np.full(4, float(rank), dtype=np.float32).tobytes().ljust(64, b"\0")
        seen = np.array(7 + rank).tobytes().ljust(64, b"\0")
        peer.push(assign, peer.gradient())
        peer.commit(assign, mean + seen)
        assert peer.expect(wire.Verdict).outcome is wire.Outcome.ACCEPTED
    peers[0].assigned()
    section = bytes(peers[0].sections["moving"])
    slots = {slot.entry.name: slot.offset for slot in peers[0].schema.moving}
    np.testing.assert_array_equal(np.frombuffer(section, np.float32, 4, slots["mean"]), np.full(4, 0.5))
    assert np.frombuffer(section, np.int64, 1, slots["seen"])[0] == 7
