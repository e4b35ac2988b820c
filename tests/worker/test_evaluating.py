"""Evaluation of a copy: the model that trains is never touched, and nothing a program does in it is fatal."""

import contextlib
import threading

import pytest
import torch
from torch import nn

from backupsync.errors import ProgramError
from backupsync.wire.messages import AbortEvaluation, Evaluated, Heartbeat, Ready
from backupsync_worker.evaluation import numbers


def finish(aggregator, worker):
    aggregator.receive(Ready)
    aggregator.dismiss()
    worker.join()


def ones(aggregator):
    total = aggregator.schema.section_bytes(aggregator.schema.moving)
    return torch.ones(total // 4).numpy().tobytes()


def ask(aggregator, iteration=4, averaged=True, section="ema"):
    aggregator.welcome()
    aggregator.receive(Ready)
    aggregator.parameters(iteration, ones(aggregator), section=section)
    aggregator.evaluate(iteration, averaged)


def test_a_copy_of_the_averaged_parameters_is_evaluated(aggregator, start):
    seen = []

    def evaluate(model):
        seen.append((model, model.training, torch.is_grad_enabled(), model.weight.tolist()))
        return {"accuracy": torch.tensor(0.5), "count": 3}

    worker = start(evaluate=evaluate)
    before = worker.model.weight.detach().clone()
    ask(aggregator)
    answer = aggregator.receive(Evaluated)
    assert (answer.iteration, answer.metrics, answer.error) == (4, {"accuracy": 0.5, "count": 3.0}, None)
    [(model, training, grad, weight)] = seen
    assert model is not worker.model
    assert not training
    assert not grad
    assert weight == [[1.0, 1.0]]
    assert torch.equal(worker.model.weight, before)
    finish(aggregator, worker)


@pytest.mark.parametrize("section", ["ema", "moving"])
def test_without_an_average_the_plain_parameters_are_evaluated(aggregator, start, section):
    worker = start(evaluate=lambda model: {"sum": model.weight.sum()})
    ask(aggregator, averaged=False, section=section)
    assert aggregator.receive(Evaluated).metrics == {"sum": 2.0}
    finish(aggregator, worker)


def test_training_goes_on_after_an_evaluation_as_if_there_had_been_none(aggregator, start):
    worker = start(evaluate=lambda model: {"random": torch.rand(()).item()})
    aggregator.welcome()
    _, first = aggregator.one_iteration(0, 5)
    aggregator.receive(Ready)
    aggregator.parameters(0, ones(aggregator), section="ema")
    aggregator.evaluate(0)
    aggregator.receive(Evaluated)
    aggregator.assign(0, 6)
    aggregator.gradient()
    aggregator.assign(0, 5)
    assert aggregator.gradient()[1] == first
    finish(aggregator, worker)


def test_the_same_evaluation_draws_the_same_random_numbers(aggregator, start):
    worker = start(evaluate=lambda model: {"random": torch.rand(()).item()})
    ask(aggregator, iteration=4)
    first = aggregator.receive(Evaluated)
    torch.manual_seed(99)
    aggregator.evaluate(4)
    assert aggregator.receive(Evaluated).metrics == first.metrics
    finish(aggregator, worker)


def test_what_evaluate_raises_is_the_answer(aggregator, start):
    def evaluate(model):
        raise ValueError("no test set")

    worker = start(evaluate=evaluate)
    ask(aggregator)
    answer = aggregator.receive(Evaluated)
    assert answer.metrics == {}
    assert "ValueError: no test set" in answer.error
    finish(aggregator, worker)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "must give a dict of names to numbers"),
        ({"accuracy": "good"}, "accuracy is a str"),
        ({3: 1.0}, "3 is no name"),
        ({"per_class": torch.ones(3)}, r"tensor of shape \[3\]"),
        ({f"m{i}": i for i in range(65)}, "at most 64"),
    ],
)
def test_what_is_no_dict_of_numbers_is_said_in_clear_words(given, message):
    with pytest.raises(ProgramError, match=message):
        numbers("evaluate()", given)


def test_a_program_without_evaluate_answers_with_nothing(aggregator, start):
    worker = start()
    ask(aggregator)
    answer = aggregator.receive(Evaluated)
    assert (answer.metrics, answer.error) == ({}, None)
    finish(aggregator, worker)


class Endless:
    """An evaluation that runs forward passes until it is told to stop, and swallows what it can."""

    def __init__(self):
        self.running = threading.Event()

    def __call__(self, model):
        while True:
            with contextlib.suppress(Exception):
                model(torch.ones(1, 2))
            self.running.set()

    def wait(self):
        assert self.running.wait(30)


@pytest.fixture
def endless():
    return Endless()


def test_an_evaluation_is_aborted_on_demand_whatever_the_program_catches(aggregator, start, endless):
    worker = start(evaluate=endless)
    ask(aggregator)
    endless.wait()
    aggregator.say(AbortEvaluation(4))
    assert aggregator.receive(Evaluated).error == "aborted"
    assert aggregator.one_iteration(5, 0)[0].iteration == 5
    finish(aggregator, worker)


def test_an_evaluation_called_off_before_it_began_is_not_begun(aggregator, start, endless):
    worker = start(evaluate=endless)
    aggregator.welcome()
    aggregator.receive(Ready)
    aggregator.evaluate(4)
    aggregator.say(AbortEvaluation(4))
    aggregator.parameters(4, ones(aggregator), section="ema")
    finish(aggregator, worker)
    assert not endless.running.is_set()


def test_heartbeats_name_the_evaluation(aggregator, start, endless):
    worker = start(evaluate=endless)
    ask(aggregator)
    while aggregator.receive(Heartbeat).phase != "evaluate":
        pass
    aggregator.say(AbortEvaluation(4))
    aggregator.receive(Evaluated)
    finish(aggregator, worker)


def test_orders_to_leave_end_an_evaluation(aggregator, start, endless):
    worker = start(evaluate=endless)
    ask(aggregator)
    endless.wait()
    aggregator.dismiss("scaled")
    worker.join()
    assert worker.session.exit_code == 0


def test_a_request_to_stop_ends_an_evaluation(aggregator, start, endless):
    worker = start(evaluate=endless)
    ask(aggregator)
    endless.wait()
    worker.stop.requested = True
    worker.join()
    assert worker.session.exit_code == 0


def test_a_lost_connection_ends_an_evaluation(aggregator, start, endless):
    worker = start(evaluate=endless)
    ask(aggregator)
    endless.wait()
    aggregator.shut()
    aggregator.open()
    aggregator.welcome()
    finish(aggregator, worker)


def test_a_model_that_cannot_be_copied_is_named(aggregator, start):
    class Holder(nn.Linear):
        def __init__(self):
            super().__init__(2, 1)
            self.lock = threading.Lock()

    worker = start(model=Holder(), evaluate=lambda model: {})
    with pytest.raises(ProgramError, match="Holder: cannot be copied for evaluation"):
        worker.join()
