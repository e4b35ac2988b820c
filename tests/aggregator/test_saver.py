"""Checkpoints in relation to the trace."""

import logging

import pytest

from backupsync.errors import CheckpointError
from backupsync_aggregator.checkpoints.saver import Saver
from backupsync_aggregator.telemetry.metrics import Metrics


class Directory:
    """Notes what happens to it, in order."""

    def __init__(self, happened: list[str]) -> None:
        self.happened = happened

    def save(self, iteration: int, model: object, progress: dict) -> None:
        self.happened.append(f"saved {iteration}")


def test_the_trace_is_handed_over_before_every_checkpoint_so_that_a_replay_finds_no_hole():
    happened: list[str] = []
    saver = Saver(Directory(happened), every=2, metrics=Metrics())
    saver.flush_trace = lambda: happened.append("flushed")
    for iteration in range(5):
        saver.save_when_due(iteration, model=None)
    assert happened == ["flushed", "saved 2", "flushed", "saved 4"]


def test_a_claim_that_is_gone_is_said_once_and_not_before_every_update(caplog: pytest.LogCaptureFixture):
    class Gone(Directory):
        def verify_claim(self) -> None:
            raise CheckpointError("the claim of epoch 1 was removed; nothing is written")

    saver = Saver(Gone([]), every=2, metrics=Metrics())
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            saver.verify()
    assert len(caplog.records) == 1
