"""Optimizers of torch by name and keyword, and their groups by pattern."""

import pytest
import torch

from backupsync.spec import ManifestError, OptimizerSpec
from backupsync.wire.schema import Schema
from backupsync_aggregator.tensors.model_state import ModelState, WeightedGradient
from backupsync_aggregator.tensors.optimizer import optimizer_classes
from backupsync_aggregator.tensors.optimizer_checks import optimizer_problems

RUNNABLE = sorted(set(optimizer_classes()) - {"LBFGS", "SparseAdam"})
LATE = {"SGD": {"momentum": 0.9}, "RMSprop": {"momentum": 0.9, "centered": True}, "Adam": {"amsgrad": True}}


def matrices(toys) -> Schema:
    return Schema((toys.entry("a.weight", 3, 4), toys.entry("b.weight", 5, 2)))


def train(toys, schema: Schema, spec, steps: int = 5) -> ModelState:
    state = toys.state(schema, spec)
    for step in range(steps):
        state.apply(toys.gradients(schema, 1, step), 4 * step)
    return state


@pytest.mark.parametrize("name", RUNNABLE)
def test_every_optimizer_of_torch_steps_as_torch_itself_does(toys, name):
    schema = matrices(toys)
    state = train(toys, schema, toys.spec(optimizer={"name": name, "lr": 0.05}))
    parameters = [torch.zeros(3, 4), torch.zeros(5, 2)]
    reference = optimizer_classes()[name](parameters, lr=0.05)
    for step in range(5):
        (gradient,) = toys.gradients(schema, 1, step)
        parameters[1].grad = gradient.flat[:10].view(5, 2)
        parameters[0].grad = gradient.flat[10:].view(3, 4)
        reference.step()
    published = toys.values(schema, state.published())
    torch.testing.assert_close(published["a.weight"], parameters[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(published["b.weight"], parameters[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", RUNNABLE)
def test_a_parameter_may_get_its_first_gradient_late_and_miss_some(toys, name):
    schema, reference = matrices(toys), [torch.zeros(3, 4), torch.zeros(5, 2)]
    state = toys.state(schema, toys.spec(optimizer={"name": name, "lr": 0.05} | LATE.get(name, {})))
    optimizer = optimizer_classes()[name](reference, lr=0.05, **LATE.get(name, {}))
    for step, absent in enumerate([(1,), (1,), (), (0,), (0, 1), ()]):
        (gradient,) = toys.gradients(schema, 1, step)
        state.apply([WeightedGradient(gradient.flat, 4, 1.0, absent)], 4 * step)
        reference[0].grad = None if 0 in absent else gradient.flat[10:].view(3, 4)
        reference[1].grad = None if 1 in absent else gradient.flat[:10].view(5, 2)
        optimizer.step()
    published = toys.values(schema, state.published())
    torch.testing.assert_close(published["a.weight"], reference[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(published["b.weight"], reference[1], rtol=1e-5, atol=1e-6)


def refusal(**optimizer) -> str:
    problems = optimizer_problems(OptimizerSpec.model_validate({"lr": 0.1} | optimizer))
    return "\n".join(map(str, problems))


@pytest.mark.parametrize(
    ("optimizer", "said"),
    [
        (
            {"name": "AdanW"},
            "spec.training.optimizer.name = 'AdanW': is no class of torch.optim that can run here; did you "
            "mean AdamW?",
        ),
        ({"name": "sgd"}, "did you mean SGD?"),
        ({"name": "Zebra42"}, "valid: ASGD, Adadelta"),
        ({"name": "Optimizer"}, "is no class of torch.optim"),
        ({"name": "LBFGS"}, "computes the loss again within a step (a closure)"),
        ({"name": "SparseAdam"}, "takes sparse gradients only"),
        (
            {"momentun": 0.9},
            "spec.training.optimizer.momentun = 0.9: is no keyword of SGD; did you mean momentum?",
        ),
        (
            {"name": "AdamW", "momentum": 0.9},
            "spec.training.optimizer.momentum = 0.9: is no keyword of AdamW",
        ),
        ({"params": []}, "is filled by BackupSync"),
        ({"differentiable": True}, "spec.training.optimizer.differentiable = True: records the step"),
        (
            {"name": "Adam", "capturable": True},
            "spec.training.optimizer.capturable = True: is for CUDA graphs",
        ),
        (
            {"momentum": -1},
            "spec.training.optimizer.momentum = -1: is not taken by SGD: Invalid momentum value: -1",
        ),
        ({"momentum": "much"}, "spec.training.optimizer.momentum = 'much': is not taken by SGD"),
        ({"fused": True}, "spec.training.optimizer.fused = True: fused SGD fails where a parameter gets"),
        ({"nesterov": True}, "Nesterov momentum requires a momentum"),
        ({"name": "Adam", "betas": [0.9]}, "spec.training.optimizer.betas = [0.9]: is not taken by Adam"),
        ({"name": "Adam", "foreach": True, "fused": True}, "is not taken by Adam"),
        (
            {"groups": [{"match": ["*"], "weigth_decay": 0}]},
            "groups.0.weigth_decay = 0: is no keyword of SGD; did you mean weight_decay?",
        ),
        (
            {"groups": [{"match": ["*"], "weight_decay": -3}]},
            "groups.0.weight_decay = -3: is not taken by SGD: Invalid weight_decay",
        ),
        ({"groups": [{"match": ["*"], "lr": -3}]}, "spec.training.optimizer.groups.0.lr = -3"),
        ({"groups": [{"match": ["*"], "fused": True}]}, "groups.0.fused = True: is set for all groups"),
    ],
)
def test_what_torch_would_not_take_is_refused_with_field_value_and_remedy(optimizer, said):
    assert said in refusal(**optimizer)


def test_every_wrong_keyword_is_named_at_once():
    said = refusal(momentun=1, dampning=2, groups=[{"match": ["*"], "lrr": 3}])
    assert [line.split(" = ")[0].rsplit(".", 1)[1] for line in said.splitlines()] == [
        "momentun",
        "dampning",
        "lrr",
    ]


@pytest.mark.parametrize("name", RUNNABLE)
def test_every_optimizer_with_its_defaults_has_no_problem(name):
    assert refusal(name=name) == ""


def test_numbers_that_yaml_reads_as_text_are_numbers(toys):
    schema = matrices(toys)
    plain = {"name": "AdamW", "lr": 0.01, "weight_decay": 1e-2, "betas": [0.8, 0.9], "eps": 1e-6}
    texts = plain | {"weight_decay": "1e-2", "betas": ["0.8", "9e-1"], "eps": "1e-6"}
    assert refusal(**texts) == ""
    digests = {train(toys, schema, toys.spec(optimizer=each)).digest() for each in (plain, texts)}
    assert len(digests) == 1


def grouped(toys, *groups: dict, **optimizer) -> dict[str, torch.Tensor]:
    """One step with unit gradients from 1 over two layers with a tied embedding."""
    schema = Schema(
        (
            toys.entry("embedding.weight", 2, aliases=["head.weight"]),
            toys.entry("norm.weight", 2),
            toys.entry("norm.bias", 2),
        )
    )
    spec = toys.spec(optimizer={"lr": 1.0, "groups": list(groups)} | optimizer)
    state = toys.state(schema, spec, **{e.name: torch.ones(2) for e in schema.trainable})
    state.apply([WeightedGradient(torch.ones(6), 4, 1.0)], 0)
    return {name: 1 - value[0].item() for name, value in toys.values(schema, state.published()).items()}


def test_groups_override_keywords_by_pattern_and_the_first_match_wins(toys):
    moved = grouped(toys, {"match": ["*.bias"], "lr": 0.5}, {"match": ["norm.*"], "lr": 0.25})
    assert moved == {"embedding.weight": 1.0, "norm.weight": 0.25, "norm.bias": 0.5}


def test_norms_and_biases_can_go_without_weight_decay(toys):
    moved = grouped(toys, {"match": ["*.bias", "norm.*"], "weight_decay": 0}, weight_decay=1.0)
    assert moved == {"embedding.weight": 2.0, "norm.weight": 1.0, "norm.bias": 1.0}


def test_a_pattern_reaches_tied_weights_by_every_name_they_have(toys):
    assert grouped(toys, {"match": ["head.*"], "lr": 0.125})["embedding.weight"] == 0.125


def test_groups_may_take_every_parameter(toys):
    assert set(grouped(toys, {"match": ["*"], "lr": 0.5}).values()) == {0.5}


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        (
            [{"match": ["*.bais"]}],
            r"groups.0.match = \['\*.bais'\]: matches no trainable parameter; the model has "
            "embedding.weight, norm.weight, norm.bias",
        ),
        (
            [{"match": ["*"]}, {"match": ["norm.*"]}],
            "groups.1.match = .*: matches only parameters that an earlier group takes",
        ),
    ],
)
def test_a_group_that_reaches_no_parameter_is_refused(toys, groups, said):
    with pytest.raises(ManifestError, match=said):
        grouped(toys, *groups)


class MatricesOnly(torch.optim.SGD):
    """Like torch's Muon, which the oldest supported torch does not have."""

    def __init__(self, params, lr: float = 0.1) -> None:
        super().__init__(params, lr)
        for tensor in self.param_groups[0]["params"]:
            if tensor.dim() != 2:
                raise ValueError("only 2D parameters")


def test_a_parameter_that_the_optimizer_cannot_train_is_named(toys, monkeypatch):
    monkeypatch.setattr(torch.optim, "MatricesOnly", MatricesOnly, raising=False)
    schema = Schema((toys.entry("weight", 3, 4), toys.entry("bias", 4)))
    with pytest.raises(
        ManifestError, match=r"cannot train parameter bias of shape \[4\]: only 2D parameters"
    ):
        toys.state(schema, toys.spec(optimizer={"name": "MatricesOnly"}))


def test_steps_run_over_lists_of_tensors_unless_the_manifest_chose(toys):
    schema = matrices(toys)
    chosen = {"name": "AdamW", "lr": 0.01}
    states = [
        train(toys, schema, toys.spec(optimizer=chosen | more))
        for more in ({}, {"foreach": False}, {"fused": True})
    ]
    published = [toys.values(schema, state.published())["a.weight"] for state in states]
    torch.testing.assert_close(published[0], published[1])
    torch.testing.assert_close(published[0], published[2])
