"""The training section of a manifest, checked before anything is started."""

import pytest

from backupsync.errors import BackupSyncError
from backupsync.wire.schema import Schema
from backupsync_aggregator.tensors.validation import check_training, validate_training


def test_a_sound_training_section_has_no_problems(toys):
    training = toys.spec(
        optimizer={
            "name": "AdamW",
            "weight_decay": "1e-2",
            "groups": [{"match": ["*.bias"], "weight_decay": 0}],
        },
        schedule={"name": "CosineAnnealingLR", "T_max": 100},
        warmup={"examples": 100},
    ).training
    assert validate_training(training) == []
    check_training(training, Schema((toys.entry("w", 2, 2), toys.entry("w.bias", 2))))


def test_problems_name_field_value_and_remedy(toys):
    (problem,) = validate_training(toys.spec(optimizer={"name": "RMSProp"}).training)
    assert problem.field == "spec.training.optimizer.name"
    assert problem.value == "'RMSProp'"
    assert problem.remedy.endswith("did you mean RMSprop?")


def test_a_schedule_is_judged_once_the_optimizer_is_sound(toys):
    schedule = {"name": "StepLR"}
    both = toys.spec(optimizer={"momentun": 1}, schedule=schedule).training
    assert [p.field for p in validate_training(both)] == ["spec.training.optimizer.momentun"]
    sound = toys.spec(schedule=schedule).training
    assert [p.field for p in validate_training(sound)] == ["spec.training.schedule.step_size"]


def test_a_check_against_the_model_raises_every_problem_as_one_error(toys):
    training = toys.spec(optimizer={"groups": [{"match": ["a*"]}, {"match": ["b*"]}]}).training
    with pytest.raises(BackupSyncError) as caught:
        check_training(training, Schema((toys.entry("weight", 2),)))
    assert [p.field for p in caught.value.problems] == [
        "spec.training.optimizer.groups.0.match",
        "spec.training.optimizer.groups.1.match",
    ]
