"""The learning rate: schedule × warm-up × scaling, by applied examples."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backupsync.spec import OptimizerSpec, ScheduleSpec, TrainingSpec
from backupsync_aggregator.tensors.schedule import LearningRate, schedule_problems

REFERENCE, BATCH = 4, 8
ITERATION = REFERENCE * BATCH


def training(optimizer: dict | None = None, **more) -> TrainingSpec:
    return TrainingSpec.model_validate(
        {"iterations": 10, "batchSize": BATCH, "optimizer": {"name": "SGD", "lr": 0.4} | (optimizer or {})}
        | more
    )


def rates(spec: TrainingSpec, iterations: int) -> list[float]:
    rate = LearningRate(spec, REFERENCE)
    return [rate.at(step * ITERATION, REFERENCE).base for step in range(iterations)]


SCHEDULES = [
    {"name": "StepLR", "step_size": 3, "gamma": 0.5},
    {"name": "MultiStepLR", "milestones": [2, 5]},
    {"name": "CosineAnnealingLR", "T_max": 12, "eta_min": 0.01},
    {"name": "CosineAnnealingWarmRestarts", "T_0": 4},
    {"name": "ExponentialLR", "gamma": 0.9},
    {"name": "LinearLR", "total_iters": 6},
    {"name": "ConstantLR", "total_iters": 4},
    {"name": "PolynomialLR", "total_iters": 8, "power": 2.0},
    {"name": "OneCycleLR", "max_lr": 1.0, "total_steps": 20},
    {"name": "CyclicLR", "base_lr": 0.1, "max_lr": 1.0, "step_size_up": 4},
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s["name"])
def test_one_step_of_a_schedule_is_one_reference_iteration_of_torchs_own(schedule):
    parameter = torch.zeros(1)
    optimizer = torch.optim.SGD([parameter], lr=0.4, momentum=0.9)
    keywords = {key: value for key, value in schedule.items() if key != "name"}
    scheduler = getattr(torch.optim.lr_scheduler, schedule["name"])(optimizer, **keywords)
    expected = []
    for _ in range(16):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates(training({"momentum": 0.9}, schedule=schedule), 16) == expected


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s["name"])
def test_a_rate_depends_on_applied_examples_alone_however_often_it_was_asked_for(schedule):
    spec = training({"momentum": 0.9}, schedule=schedule)
    steady = rates(spec, 16)
    jumping = LearningRate(spec, REFERENCE)
    for step in (0, 15, 3, 3, 9, 1):
        assert jumping.at(step * ITERATION, REFERENCE).base == steady[step]


def test_between_reference_iterations_the_schedule_stands_still():
    rate = LearningRate(training(schedule={"name": "ExponentialLR", "gamma": 0.5}), REFERENCE)
    assert [rate.at(examples, 3).base for examples in (0, ITERATION - 1, ITERATION, 2 * ITERATION)] == [
        0.4,
        0.4,
        0.2,
        0.1,
    ]


def test_a_schedule_of_bounded_length_keeps_its_last_rate():
    schedule = {"name": "OneCycleLR", "max_lr": 1.0, "total_steps": 5}
    found = rates(training({"momentum": 0.9}, schedule=schedule), 9)
    assert len(set(found[4:])) == 1
    assert found[4] < found[3]


def test_a_schedule_that_cycles_momentum_moves_it_too():
    schedule = {"name": "OneCycleLR", "max_lr": 1.0, "total_steps": 20}
    rate = LearningRate(training({"momentum": 0.9}, schedule=schedule), REFERENCE)
    momenta = [rate.at(step * ITERATION, REFERENCE).groups[0]["momentum"] for step in range(8)]
    assert momenta[0] == pytest.approx(0.95)
    assert min(momenta) == pytest.approx(0.85)
    rate = LearningRate(training({"name": "AdamW"}, schedule=schedule), REFERENCE)
    assert rate.at(0, REFERENCE).groups[0]["betas"] == (pytest.approx(0.95), 0.999)


def test_groups_keep_their_own_rate_under_a_schedule():
    optimizer = {"groups": [{"match": ["head.*"], "lr": 4.0}]}
    rate = LearningRate(training(optimizer, schedule={"name": "ExponentialLR", "gamma": 0.5}), REFERENCE)
    assert [group["lr"] for group in rate.at(2 * ITERATION, REFERENCE).groups] == [0.1, 1.0]


@settings(max_examples=50, deadline=None)
@given(examples=st.integers(0, 5000), start=st.floats(0, 0.99), length=st.integers(1, 2000))
def test_warm_up_rises_linearly_in_applied_examples(examples, start, length):
    spec = training(warmup={"examples": length, "startFactor": start})
    expected = 0.4 * (start + (1 - start) * min(1.0, examples / length))
    assert LearningRate(spec, REFERENCE).at(examples, REFERENCE).base == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("scaling", "factor"),
    [
        ("None", lambda k: 1.0),
        ("Linear", lambda k: k / REFERENCE),
        ("Sqrt", lambda k: math.sqrt(k / REFERENCE)),
    ],
)
@pytest.mark.parametrize("accepted", [1, 3, 4, 9])
def test_the_rate_follows_the_accepted_gradients_of_the_update(scaling, factor, accepted):
    rate = LearningRate(training(scaling=scaling), REFERENCE)
    assert rate.at(0, accepted).base == pytest.approx(0.4 * factor(accepted))


def test_schedule_warm_up_and_scaling_multiply():
    spec = training(
        schedule={"name": "ExponentialLR", "gamma": 0.5},
        warmup={"examples": 4 * ITERATION, "startFactor": 0.5},
        scaling="Linear",
    )
    assert LearningRate(spec, REFERENCE).at(2 * ITERATION, 2).base == pytest.approx(0.4 * 0.25 * 0.75 * 0.5)


def refusal(optimizer: dict | None = None, **schedule) -> str:
    chosen = OptimizerSpec.model_validate({"name": "SGD", "lr": 0.1} | (optimizer or {}))
    return "\n".join(map(str, schedule_problems(chosen, ScheduleSpec.model_validate(schedule))))


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        (
            {"name": "CosineAnealingLR", "T_max": 3},
            "spec.training.schedule.name = 'CosineAnealingLR': is no class of torch.optim.lr_scheduler that "
            "can run here; did you mean CosineAnnealingLR?",
        ),
        ({"name": "ReduceLROnPlateau"}, "follows a validation loss"),
        ({"name": "LambdaLR", "lr_lambda": "x"}, "needs a Python function, which a manifest cannot hold"),
        ({"name": "MultiplicativeLR"}, "needs a Python function"),
        ({"name": "SequentialLR"}, "a manifest cannot hold; use one schedule, and training.warmup"),
        ({"name": "ChainedScheduler"}, "combines scheduler objects"),
        ({"name": "LRScheduler"}, "is no class of torch.optim.lr_scheduler"),
        ({"name": "StepLR"}, "spec.training.schedule.step_size: is required by StepLR"),
        (
            {"name": "StepLR", "step_size": 3, "gama": 0.1},
            "spec.training.schedule.gama = 0.1: is no keyword of StepLR; did you mean gamma?",
        ),
        ({"name": "StepLR", "step_size": 0}, "is not taken by StepLR"),
        (
            {"name": "StepLR", "step_size": 3, "last_epoch": 4},
            "spec.training.schedule.last_epoch = 4: is filled by BackupSync",
        ),
        ({"name": "ExponentialLR", "gamma": -1}, "the learning rate after 1 steps would be -0.1"),
        ({"name": "ExponentialLR", "gamma": "slow"}, "is not taken by ExponentialLR"),
        ({"name": "MultiStepLR", "milestones": 5}, "is not taken by MultiStepLR"),
        (
            {"name": "CyclicLR", "base_lr": 0.1, "max_lr": 1, "scale_fn": "x"},
            "spec.training.schedule.scale_fn = 'x': needs a Python function",
        ),
        ({"name": "OneCycleLR", "max_lr": 0.1}, "is not taken by OneCycleLR"),
    ],
)
def test_a_schedule_that_cannot_run_is_refused_with_field_value_and_remedy(schedule, said):
    assert said in refusal(**schedule)


def test_a_schedule_of_momentum_needs_an_optimizer_that_has_some():
    assert "momentum" in refusal({"name": "Adagrad"}, name="OneCycleLR", max_lr=0.1, total_steps=9)


def test_numbers_that_yaml_reads_as_text_are_numbers():
    schedule = {"name": "CosineAnnealingLR", "T_max": 10, "eta_min": "1e-3"}
    assert refusal(**schedule) == ""
    assert rates(training(schedule=schedule), 11)[-1] == pytest.approx(1e-3)
