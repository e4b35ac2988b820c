"""Checkpoints: to the last bit, whole or not at all, and never another job's."""

import errno
import json
import os
import resource
import subprocess
from pathlib import Path

import pytest
import torch

from backupsync.errors import CheckpointError
from backupsync.wire.schema import Schema
from backupsync_aggregator.checkpoints.checkpoint import DOCUMENT, STATE, SUMS, CheckpointDirectory
from backupsync_aggregator.tensors.model_state import ModelState, WeightedGradient

JOBS = {
    "SGD with momentum": {"optimizer": {"name": "SGD", "momentum": 0.9}},
    "AdamW": {"optimizer": {"name": "AdamW", "lr": 0.01, "amsgrad": True}},
    "RMSprop": {"optimizer": {"name": "RMSprop", "lr": 0.01, "momentum": 0.9, "centered": True}},
    "Adafactor": {"optimizer": {"name": "Adafactor"}},
    "NAdam": {"optimizer": {"name": "NAdam", "lr": 0.01}},
    "ASGD": {"optimizer": {"name": "ASGD"}},
    "schedule": {
        "schedule": {"name": "CosineAnnealingLR", "T_max": 10},
        "warmup": {"examples": 30},
        "scaling": "Sqrt",
    },
    "schedule of momentum": {
        "optimizer": {"name": "RMSprop"},
        "schedule": {"name": "OneCycleLR", "max_lr": 0.1, "total_steps": 20},
    },
    "average": {"emaDecay": 0.9},
    "groups": {"optimizer": {"momentum": 0.9, "groups": [{"match": ["half"], "momentum": 0, "lr": 0.5}]}},
}


def schema_of(toys) -> Schema:
    return Schema(
        (
            toys.entry("w", 7, 5),
            toys.entry("half", 9, dtype="bfloat16", aliases=["tied"]),
            toys.entry("wide", 3, dtype="float64"),
            toys.entry("never", 2),
            toys.entry("scalar"),
            toys.entry("empty", 0, 3),
            toys.entry("base", 4, role="frozen"),
            toys.entry("mean", 3, role="buffer"),
            toys.entry("steps", role="buffer", dtype="int64"),
        )
    )


def fresh(toys, spec) -> ModelState:
    schema = schema_of(toys)
    state = toys.state(schema, spec, w=torch.linspace(-1, 1, 35))
    for tensor in state.frozen_tensors():
        tensor.fill_(2.5)
    return state


def train(toys, state: ModelState, first: int, last: int) -> None:
    never = {e.name: i for i, e in enumerate(state.schema.trainable)}["never"]
    for step in range(first, last):
        data = toys.buffers(state.schema, mean=torch.full((3,), 0.3 * step), steps=torch.tensor(step))
        gradients = [
            WeightedGradient(g.flat, 3 + place, 0.5, (never,), data)
            for place, g in enumerate(toys.gradients(state.schema, 3, step))
        ]
        state.apply(gradients, 12 * step)


def claimed(path: Path, keep: int = 3, epoch: int = 1) -> CheckpointDirectory:
    directory = CheckpointDirectory(path, keep)
    directory.claim(epoch, "test")
    return directory


@pytest.mark.parametrize("training", JOBS.values(), ids=JOBS.keys())
def test_ten_updates_equal_five_a_checkpoint_and_five_to_the_last_bit(toys, tmp_path, training):
    spec = toys.spec(**training)
    through, stopped = fresh(toys, spec), fresh(toys, spec)
    train(toys, through, 0, 10)
    train(toys, stopped, 0, 5)
    claimed(tmp_path).save(5, stopped, {})
    loaded = CheckpointDirectory(tmp_path, 3).load_newest(spec)
    assert loaded.iteration == 5
    resumed = loaded.model_state
    assert resumed.digest() == stopped.digest()
    assert resumed.frozen_section() == stopped.frozen_section()
    train(toys, resumed, 5, 10)
    assert resumed.digest() == through.digest()
    assert resumed.evaluation_section() == through.evaluation_section()
    assert resumed.updates == 10


@pytest.mark.parametrize("training", [JOBS["schedule"], {"scaling": "Linear"}], ids=["schedule", "scaling"])
def test_a_job_scaled_before_its_aggregator_came_back_keeps_its_learning_rate(toys, tmp_path, training):
    through = fresh(toys, toys.spec(workers=2, **training))
    train(toys, through, 0, 5)
    claimed(tmp_path).save(5, through, {})
    scaled = toys.spec(workers=3, **training)
    resumed = CheckpointDirectory(tmp_path, 3).load_newest(scaled).model_state
    train(toys, through, 5, 10)
    train(toys, resumed, 5, 10)
    assert resumed.digest() == through.digest()
    claimed(tmp_path, epoch=2).save(10, resumed, {})
    again = CheckpointDirectory(tmp_path, 3).load_newest(scaled).model_state
    assert again.spec.reference_workers == 2
    named = toys.spec(workers=3, referenceWorkers=5, **training)
    assert CheckpointDirectory(tmp_path, 3).load_newest(named).model_state.spec.reference_workers == 5


def test_a_checkpoint_carries_the_callers_progress(toys, tmp_path):
    progress = {"next_ticket": 2**60, "returned": [3, 5], "examples": 160, "rate": 0.1}
    claimed(tmp_path).save(0, fresh(toys, toys.spec()), progress)
    assert CheckpointDirectory(tmp_path, 3).load_newest(toys.spec()).progress == progress


def test_an_empty_directory_has_no_checkpoint(toys, tmp_path):
    assert CheckpointDirectory(tmp_path / "new", 3).load_newest(toys.spec()) is None


def test_a_person_can_check_and_read_a_checkpoint_with_common_tools(toys, tmp_path):
    folder = claimed(tmp_path).save(7, fresh(toys, toys.spec()), {})
    done = subprocess.run(["sha256sum", "-c", SUMS], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.count("OK") == 2
    document = json.loads((folder / DOCUMENT).read_text())
    assert (document["iteration"], document["epoch"], document["optimizer"]) == (7, 1, "SGD")


def test_the_newest_are_kept_and_older_ones_deleted(toys, tmp_path):
    directory, state = claimed(tmp_path, keep=2), fresh(toys, toys.spec())
    for iteration in (0, 10, 20, 30):
        directory.save(iteration, state, {})
    assert directory.iterations() == [20, 30]
    assert directory.load_newest(toys.spec()).iteration == 30


def test_the_same_iteration_can_be_saved_again_and_the_later_one_counts(toys, tmp_path):
    directory, state = claimed(tmp_path, keep=2), fresh(toys, toys.spec())
    for number in range(12):
        directory.save(5, state, {"number": number})
    assert directory.load_newest(toys.spec()).progress == {"number": 11}
    assert len(list(tmp_path.glob("checkpoint-*"))) == 1


def test_a_later_epochs_checkpoint_counts_more_than_a_higher_iteration_it_did_not_descend_from(
    toys, tmp_path
):
    spec, state = toys.spec(), fresh(toys, toys.spec())
    claimed(tmp_path, epoch=1).save(100, state, {"epoch": 1})
    claimed(tmp_path, epoch=2).save(60, state, {"epoch": 2})
    assert CheckpointDirectory(tmp_path, 3).load_newest(spec).progress == {"epoch": 2}


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("name", [STATE, DOCUMENT, SUMS])
@pytest.mark.parametrize(
    "damage",
    [truncate, flip, Path.unlink, lambda f: f.write_bytes(b"")],
    ids=["truncated", "flipped", "gone", "empty"],
)
def test_a_damaged_checkpoint_is_stepped_over_and_named(toys, tmp_path, name, damage):
    directory, state = claimed(tmp_path), fresh(toys, toys.spec())
    directory.save(10, state, {"at": 10})
    newest = directory.save(20, state, {"at": 20})
    damage(newest / name)
    loaded = directory.load_newest(toys.spec())
    assert loaded.progress == {"at": 10}
    assert len(loaded.skipped) == 1
    assert loaded.skipped[0].startswith(f"{newest.name}: ")


def test_when_every_checkpoint_is_damaged_nothing_starts_over_in_silence(toys, tmp_path):
    directory, state = claimed(tmp_path), fresh(toys, toys.spec())
    for iteration in (10, 20):
        truncate(directory.save(iteration, state, {}) / STATE)
    with pytest.raises(
        CheckpointError, match=r"every checkpoint is damaged \(checkpoint-00000020.*checkpoint-00000010"
    ):
        directory.load_newest(toys.spec())


def test_the_checkpoint_of_another_model_is_refused_by_the_tensor_that_differs(toys, tmp_path):
    directory = claimed(tmp_path)
    directory.save(5, fresh(toys, toys.spec()), {})
    other = Schema((toys.entry("w", 7, 6), *schema_of(toys).entries[1:]))
    with pytest.raises(
        CheckpointError, match=r"another model: tensor 'w' is trainable float32\[7, 6\].*float32\[7, 5\]"
    ):
        directory.load_newest(toys.spec(), other)
    assert directory.load_newest(toys.spec(), schema_of(toys)) is not None


def test_the_checkpoint_of_another_optimizer_is_refused(toys, tmp_path):
    directory = claimed(tmp_path)
    directory.save(5, fresh(toys, toys.spec()), {})
    with pytest.raises(
        CheckpointError, match=r"written with optimizer SGD, spec.training.optimizer.name is AdamW"
    ):
        directory.load_newest(toys.spec(optimizer={"name": "AdamW"}))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"name": "Adam"}, {"name": "Adam", "amsgrad": True}),
        ({"name": "RMSprop"}, {"name": "RMSprop", "momentum": 0.9}),
        ({"name": "SGD", "momentum": 0.9}, {"name": "SGD"}),
    ],
)
def test_keywords_that_need_another_state_are_refused(toys, tmp_path, before, after):
    directory, state = claimed(tmp_path), fresh(toys, toys.spec(optimizer=before))
    train(toys, state, 0, 2)
    directory.save(2, state, {})
    with pytest.raises(CheckpointError, match=r"the optimizer's state holds .* needs"):
        directory.load_newest(toys.spec(optimizer=after))


def test_the_rate_may_change_between_runs(toys, tmp_path):
    directory, state = claimed(tmp_path), fresh(toys, toys.spec(optimizer={"momentum": 0.9}))
    train(toys, state, 0, 2)
    directory.save(2, state, {})
    resumed = directory.load_newest(toys.spec(optimizer={"momentum": 0.9, "lr": 0.5})).model_state
    assert resumed.apply(toys.gradients(resumed.schema, 2, 1), 24).learning_rate == 0.5


def test_an_average_may_be_asked_for_later_and_given_up_again(toys, tmp_path):
    directory, state = claimed(tmp_path), fresh(toys, toys.spec())
    train(toys, state, 0, 3)
    directory.save(3, state, {})
    averaging = directory.load_newest(toys.spec(emaDecay=0.9)).model_state
    assert averaging.averaged
    assert averaging.evaluation_section() == state.published()
    directory.save(4, averaging, {})
    assert not directory.load_newest(toys.spec()).model_state.averaged


def test_a_checkpoint_of_a_later_format_is_refused(toys, tmp_path, monkeypatch):
    monkeypatch.setattr("backupsync_aggregator.checkpoints.snapshot.FORMAT", 2)
    directory = claimed(tmp_path)
    directory.save(1, fresh(toys, toys.spec()), {})
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format 2, this version reads 1"):
        directory.load_newest(toys.spec())


@pytest.mark.parametrize("path", ["file", "file/below", "/proc/backupsync"])
def test_an_unwritable_directory_is_refused_at_once(tmp_path, path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"spec.checkpoint.path .*cannot be written"):
        CheckpointDirectory(tmp_path / path, 3)


def names(path: Path) -> set[str]:
    return {each.name for each in path.iterdir()}


def test_a_disk_that_is_full_keeps_the_previous_checkpoint_and_leaves_nothing_behind(toys, tmp_path):
    directory, state = claimed(tmp_path), fresh(toys, toys.spec())
    directory.save(10, state, {})
    before = names(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256, hard))
    try:
        with pytest.raises(CheckpointError, match=r"checkpoint 20: cannot be written: .*room for keep \+ 1"):
            directory.save(20, state, {})
        with pytest.raises(CheckpointError, match="the model: cannot be written"):
            directory.save_model(fresh(toys, toys.spec(emaDecay=0.5)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == before
    assert directory.load_newest(toys.spec()).iteration == 10


@pytest.mark.parametrize("nth", range(1, 7))
def test_a_disk_that_is_full_only_at_the_flush_is_noticed_too(toys, tmp_path, monkeypatch, nth):
    directory, state = claimed(tmp_path), fresh(toys, toys.spec())
    directory.save(10, state, {})
    calls, fsync = 0, os.fsync

    def full(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    if nth <= 5:
        with pytest.raises(CheckpointError, match="No space left on device"):
            directory.save(20, state, {})
    else:
        directory.save(20, state, {})
    assert not list(tmp_path.glob(".writing-*"))
    assert directory.load_newest(toys.spec()).iteration in (10, 20)


def test_a_save_that_the_caller_breaks_off_leaves_nothing_behind(toys, tmp_path):
    directory = claimed(tmp_path)
    before = names(tmp_path)
    with pytest.raises(TypeError):
        directory.save(1, fresh(toys, toys.spec()), {"unfit": object()})
    assert names(tmp_path) == before


def test_what_a_killed_writer_left_is_cleared_by_the_next_claim(toys, tmp_path):
    directory, state = claimed(tmp_path), fresh(toys, toys.spec())
    directory.save(10, state, {})
    left = tmp_path / ".writing-00000001-killed"
    left.mkdir()
    (left / STATE).write_bytes(b"half a")
    assert directory.load_newest(toys.spec()).iteration == 10
    claimed(tmp_path, epoch=2)
    assert not list(tmp_path.glob(".writing-*"))
