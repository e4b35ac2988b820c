"""Two aggregators on one checkpoint directory: only the one of the higher epoch writes."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backupsync.errors import CheckpointError, Fenced
from backupsync.wire.schema import Schema
from backupsync_aggregator.checkpoints.checkpoint import CheckpointDirectory
from backupsync_aggregator.checkpoints.claims import Claims
from backupsync_aggregator.tensors.model_state import ModelState


def directory(path: Path, epoch: int) -> CheckpointDirectory:
    made = CheckpointDirectory(path, 3)
    made.claim(epoch, f"aggregator {epoch}")
    return made


def model(toys) -> ModelState:
    return toys.state(Schema((toys.entry("w", 3),)), toys.spec())


def test_a_claim_is_a_file_that_says_whose_it_is(tmp_path):
    directory(tmp_path, 3)
    said = json.loads((tmp_path / "claims" / "epoch-00000003.json").read_text())
    assert said == {"epoch": 3, "owner": "aggregator 3"}


@pytest.mark.parametrize("second", [1, 2, 3])
def test_an_epoch_not_above_the_highest_is_fenced(tmp_path, second):
    directory(tmp_path, 3)
    with pytest.raises(Fenced, match=f"epoch 3 has been claimed; this aggregator's {second} may not write"):
        directory(tmp_path, second)


def test_the_highest_claim_is_known_without_one_of_ones_own(tmp_path):
    assert CheckpointDirectory(tmp_path, 3).highest_claim() == 0
    directory(tmp_path, 2)
    directory(tmp_path, 17)
    assert CheckpointDirectory(tmp_path, 3).highest_claim() == 17


def test_many_claims_of_one_epoch_at_once_have_one_winner(tmp_path):
    def attempt(_: int) -> bool:
        try:
            Claims(tmp_path).claim(1, "racer")
        except Fenced:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(32))) == 1


def test_a_writer_that_was_overtaken_is_fenced_at_its_next_publish(toys, tmp_path):
    old = directory(tmp_path, 1)
    old.save(10, model(toys), {"by": 1})
    new = directory(tmp_path, 2)
    for publish in (
        old.verify_claim,
        lambda: old.save(20, model(toys), {"by": 1}),
        lambda: old.save_model(model(toys)),
    ):
        with pytest.raises(Fenced):
            publish()
    new.verify_claim()
    new.save(15, model(toys), {"by": 2})
    assert new.load_newest(toys.spec()).progress == {"by": 2}
    assert not (tmp_path / "model.safetensors").exists()


def overtake_after_the_last_look(monkeypatch, tmp_path) -> None:
    """Let a successor claim the directory between the old writer's last look and its rename."""
    verify, looks = Claims.verify, 0

    def looking(self: Claims) -> None:
        nonlocal looks
        verify(self)
        looks += 1
        if looks == 2:
            directory(tmp_path, 2)

    monkeypatch.setattr(Claims, "verify", looking)


def test_a_writer_overtaken_in_the_very_moment_of_its_rename_publishes_nothing(toys, tmp_path, monkeypatch):
    old = directory(tmp_path, 1)
    old.save(10, model(toys), {})
    overtake_after_the_last_look(monkeypatch, tmp_path)
    with pytest.raises(Fenced):
        old.save(20, model(toys), {})
    assert old.iterations() == [10]
    assert not list(tmp_path.glob(".writing-*"))


def test_a_model_overtaken_in_the_very_moment_of_its_rename_is_not_published(toys, tmp_path, monkeypatch):
    old = directory(tmp_path, 1)
    overtake_after_the_last_look(monkeypatch, tmp_path)
    with pytest.raises(Fenced):
        old.save_model(model(toys))
    assert not (tmp_path / "model.safetensors").exists()


def test_without_a_claim_nothing_is_written(toys, tmp_path):
    with pytest.raises(CheckpointError, match="no epoch is claimed"):
        CheckpointDirectory(tmp_path, 3).save(1, model(toys), {})


def test_a_claim_that_somebody_removed_stops_the_writer(toys, tmp_path):
    mine = directory(tmp_path, 1)
    (tmp_path / "claims" / "epoch-00000001.json").unlink()
    with pytest.raises(CheckpointError, match="the claim of epoch 1 was removed"):
        mine.save(1, model(toys), {})
