"""The aggregator comes back: under a new epoch, from its checkpoint, or not at all."""

import json
import os
import signal
import subprocess
import sys

import msgspec
import pytest
from running_aggregator import CHUNK, RunningAggregator, desired

from backupsync.errors import CheckpointError
from backupsync.launch import to_environment
from backupsync.termination import VARIABLE, decode_ending
from backupsync.trace import Ended, Gradient, Header, Resumed, read_trace
from backupsync.wire import messages as wire
from backupsync.wire.frames import decode_from_aggregator
from backupsync_aggregator.checkpoints.checkpoint import CheckpointDirectory

SPARE = {"training": {"iterations": 6}, "checkpoint": {"everyIterations": 2}}


def train(peers, iterations):
    for _ in range(iterations):
        for peer, assign in [(p, p.assigned()) for p in peers]:
            peer.answer(assign)


def test_a_resumed_job_goes_on_from_its_checkpoint_and_repeats_no_finished_ticket(start, join, tmp_path):
    out = str(tmp_path / "out")
    first = start(SPARE, checkpoint_directory=out)
    peers = [join(first, rank) for rank in range(2)]
    train(peers, 3)
    first.until_status(lambda s: s.iteration == 3, "three iterations")
    assert first.stop() == 0
    second = start(SPARE, checkpoint_directory=out, epoch=2)
    peers = [join(second, rank) for rank in range(2)]
    assert [peer.epoch for peer in peers] == [2, 2]
    train(peers, 3)
    assert {peer.go_home().why for peer in peers} == {"succeeded"}
    status = second.until_status(lambda s: s.phase == "Succeeded", "success")
    assert (status.epoch, status.iteration, status.examples) == (2, 6, 48)
    assert second.stop() == 0
    lines = list(read_trace(tmp_path / "trace.jsonl"))
    assert sum(isinstance(line, Header) for line in lines) == 1
    (resumed,) = (line for line in lines if isinstance(line, Resumed))
    assert (resumed.epoch, resumed.iteration) == (2, 3)
    accepted = [g.ticket for g in lines if isinstance(g, Gradient) and g.outcome == "accepted"]
    assert len(accepted) == len(set(accepted)) == 12
    assert [e.outcome for e in lines if isinstance(e, Ended)] == ["Suspended", "Succeeded"]
    times = [line.at for line in lines if not isinstance(line, Header)]
    assert times == sorted(times)


def test_the_members_of_a_resumed_job_must_have_its_model(start, join, tmp_path, model):
    out = str(tmp_path / "out")
    first = start(SPARE, checkpoint_directory=out)
    join(first, 0)
    first.until_status(lambda s: s.members, "the first member")
    first.stop()
    second = start(SPARE, checkpoint_directory=out, epoch=2)
    assert not join(second, 0, joined=False).join().send_initial
    assert join(second, 1, joined=False, entries=model(7)).refusal().code == wire.RefusalCode.SCHEMA


@pytest.mark.parametrize("directory", [None, "empty"])
def test_a_later_epoch_without_its_predecessors_checkpoint_refuses_to_start_from_0(
    start, tmp_path, directory, capfd
):
    place = None if directory is None else str(tmp_path / directory)
    assert start(checkpoint_directory=place, epoch=2).exit_code() == 65
    assert "epoch 2" in capfd.readouterr().err


def test_a_later_epoch_starts_from_0_where_nobody_got_as_far_as_checkpoint_0(start, join, tmp_path):
    out = str(tmp_path / "out")
    assert start(checkpoint_directory=out).stop() == 0
    second = start(checkpoint_directory=out, epoch=2)
    assert join(second, 0, joined=False).join().send_initial


@pytest.mark.parametrize("directory", [None, "empty"])
def test_a_later_epoch_starts_from_0_where_no_earlier_one_was_seen_to_train(start, join, tmp_path, directory):
    place = None if directory is None else str(tmp_path / directory)
    second = start(checkpoint_directory=place, epoch=2, begun=False)
    assert join(second, 0, joined=False).join().send_initial


def test_a_later_epoch_does_not_start_from_0_where_checkpoints_are_gone_and_only_claims_are_left(
    start, tmp_path, capfd
):
    out = str(tmp_path / "out")
    assert start(checkpoint_directory=out).stop() == 0
    assert start(checkpoint_directory=out, epoch=2, begun=True).exit_code() == 65
    assert "no checkpoint" in capfd.readouterr().err


def test_an_epoch_that_was_claimed_before_is_fenced(start, tmp_path):
    out = str(tmp_path / "out")
    start(checkpoint_directory=out).until_status(lambda s: True, "the first")
    assert start(checkpoint_directory=out).exit_code() == 76


def test_an_aggregator_whose_directory_was_taken_over_trains_no_further(start, join, tmp_path):
    out = tmp_path / "out"
    old = start(SPARE, checkpoint_directory=str(out))
    peers = [join(old, rank) for rank in range(2)]
    train(peers, 1)
    assigns = [peer.assigned() for peer in peers]
    CheckpointDirectory(out, 3).claim(2, "a newer aggregator")
    for peer, assign in zip(peers, assigns, strict=True):
        peer.push(assign)
        peer.commit(assign)
    assert old.exit_code() == 76
    assert not list(out.glob("checkpoint-00000002*"))


def test_a_directory_that_cannot_be_written_ends_it_at_once(start, tmp_path):
    (tmp_path / "file").write_text("")
    assert start(checkpoint_directory=str(tmp_path / "file" / "out")).exit_code() == 73


def test_a_checkpoint_of_another_optimizer_is_bad_input(start, join, tmp_path):
    out = str(tmp_path / "out")
    first = start(SPARE, checkpoint_directory=out)
    join(first, 0)
    first.until_status(lambda s: s.members, "the first member")
    first.stop()
    other = {"training": {"iterations": 6, "optimizer": {"name": "AdamW", "lr": 0.1}}}
    assert start(other, checkpoint_directory=out, epoch=2).exit_code() == 65


def test_a_full_disk_does_not_stop_the_training_but_is_told(start, join, tmp_path, monkeypatch):
    real = CheckpointDirectory.save
    full = [False]

    def save(self, *arguments):
        if full[0]:
            raise CheckpointError("No space left on device")
        return real(self, *arguments)

    monkeypatch.setattr(CheckpointDirectory, "save", save)
    aggregator = start(SPARE, checkpoint_directory=str(tmp_path / "out"))
    peers = [join(aggregator, rank) for rank in range(2)]
    full[0] = True
    train(peers, 3)
    status = aggregator.until_status(lambda s: s.iteration == 3 and s.message, "the word about the disk")
    assert (status.phase, status.reason) == ("Training", "CheckpointFailed")
    assert "No space left" in status.message
    assert status.checkpoint_iteration == 0
    aggregator.until(lambda: aggregator.metric("backupsync_checkpoint_failures_total") == 1, "the failure")
    full[0] = False
    train(peers, 1)
    status = aggregator.until_status(lambda s: s.checkpoint_iteration == 4, "the next checkpoint")
    assert (status.reason, status.message) == ("", "")


def test_a_model_that_cannot_be_written_fails_the_job(start, join, tmp_path, monkeypatch):
    def save_model(self, _):
        raise CheckpointError("No space left on device")

    monkeypatch.setattr(CheckpointDirectory, "save_model", save_model)
    aggregator = start({"training": {"iterations": 1}}, checkpoint_directory=str(tmp_path / "out"))
    peers = [join(aggregator, rank) for rank in range(2)]
    train(peers, 1)
    assert {peer.go_home().why for peer in peers} == {"failed"}
    status = aggregator.until_status(lambda s: s.phase == "Failed", "failure")
    assert status.reason == "CheckpointFailed"
    assert "No space left" in status.message
    assert aggregator.stop() == 1


def test_sigterm_writes_a_checkpoint_keeps_the_workers_and_exits_0(start, join, tmp_path):
    log = tmp_path / "termination-log"
    log.touch()
    aggregator = start_process(start, tmp_path, **{VARIABLE: str(log)})
    try:
        peers = [join(aggregator, rank) for rank in range(2)]
        train(peers, 1)
        assigns = [peer.assigned() for peer in peers]
        aggregator.process.send_signal(signal.SIGINT)
        aggregator.process.send_signal(signal.SIGTERM)
        assert aggregator.process.wait(60) == 0
    finally:
        aggregator.process.kill()
        aggregator.process.wait()
    assert not [said for peer in peers for said in still_heard(peer) if isinstance(said, wire.Leave)]
    (document,) = (tmp_path / "out").glob("checkpoint-00000001*/checkpoint.json")
    progress = json.loads(document.read_text())["progress"]
    assert progress["iteration"] == 1
    assert {a.ticket for a in assigns} <= set(progress["returned"])
    ending = decode_ending(log.read_text())
    assert (ending.phase, ending.reason, ending.checkpoint_iteration) == ("Suspended", "Terminated", 1)
    assert "SIGTERM" in ending.message


@pytest.mark.parametrize(
    ("iterations", "why", "reason"), [(1, "succeeded", "Completed"), (9, "suspended", "Stopped")]
)
def test_sigterm_after_the_end_changes_nothing_of_it(start, join, tmp_path, iterations, why, reason):
    log = tmp_path / "termination-log"
    log.touch()
    training = {"training": {"iterations": iterations}}
    aggregator = start_process(start, tmp_path, training, **{VARIABLE: str(log)})
    try:
        peers = [join(aggregator, rank) for rank in range(2)]
        train(peers, 1)
        if why == "suspended":
            aggregator.tell(desired(generation=2, stop=True))
        assert {peer.go_home().why for peer in peers} == {why}
        aggregator.process.send_signal(signal.SIGTERM)
        assert aggregator.process.wait(60) == 0
    finally:
        aggregator.process.kill()
        aggregator.process.wait()
    assert decode_ending(log.read_text()).reason == reason


def start_process(start, tmp_path, changes=None, **environment):
    """Run the aggregator as the process that the engine would start."""
    aggregator = start(changes, checkpoint_directory=None)
    aggregator.stop()
    launch = msgspec.structs.replace(
        aggregator.launch,
        endpoint=f"ipc://{tmp_path}/process",
        http_file=str(tmp_path / "process.json"),
        checkpoint_directory=str(tmp_path / "out"),
        manifest=aggregator.launch.manifest | {},
    )
    return Process(aggregator, launch, environment)


class Process(RunningAggregator):
    """An aggregator as a process of its own, in the place of the fixture's thread."""

    def __init__(self, aggregator, launch, environment):
        self.launch = aggregator.launch = launch
        self.code = None
        self.process = subprocess.Popen(
            [sys.executable, "-m", "backupsync_aggregator"],
            env={**os.environ, **to_environment(launch), **environment},
        )

    @property
    def alive(self):
        self.code = self.process.poll()
        return self.code is None


def still_heard(peer):
    """What had come to the peer when the aggregator's process was gone."""
    while peer.socket.poll(100):
        yield decode_from_aggregator(peer.socket.recv_multipart(), CHUNK)[0]
