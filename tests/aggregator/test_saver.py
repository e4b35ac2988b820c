"""Checkpoints in relation to the trace."""

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
