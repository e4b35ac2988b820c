"""Late work is given up at a boundary, unless it was drawn to run to the end."""

import torch
from scripted_aggregator import DEADLINE
from torch import nn

from backupsync.wire.messages import Abandoned, Chunk, Commit, Goodbye, Heartbeat, Ready, Stale

TRAINING = {"iterations": 10, "batchSize": 4, "seed": 3, "optimizer": {"name": "SGD", "lr": 0.1}}


def finish(aggregator, worker):
    aggregator.receive(Ready)
    aggregator.dismiss()
    worker.join()


def reach_the_gate(aggregator, gate, to_the_end=False, ticket=7):
    aggregator.welcome()
    aggregator.receive(Ready)
    aggregator.parameters(0)
    aggregator.assign(0, ticket, to_the_end=to_the_end)
    gate.wait_until_reached()


def test_a_stale_batch_is_abandoned_before_backward(aggregator, start, gate):
    worker = start(loss=gate.loss)
    reach_the_gate(aggregator, gate)
    gate.hear = lambda: worker.session._member.wait(DEADLINE)
    aggregator.say(Stale(0))
    gate.open()
    abandoned = aggregator.receive((Abandoned, Chunk, Commit))
    assert isinstance(abandoned, Abandoned)
    assert (abandoned.iteration, abandoned.ticket) == (0, 7)
    assert abandoned.timing.compute > 0
    assert aggregator.one_iteration(1, 8)[0].ticket == 8
    finish(aggregator, worker)


def test_a_batch_drawn_to_run_to_the_end_is_committed_all_the_same(aggregator, start, gate):
    worker = start(loss=gate.loss)
    reach_the_gate(aggregator, gate, to_the_end=True)
    aggregator.say(Stale(0))
    gate.open()
    commit, gradient = aggregator.gradient()
    assert (commit.ticket, len(gradient)) == (7, 12)
    finish(aggregator, worker)


def test_word_of_an_earlier_iteration_makes_nothing_stale(aggregator, start, gate):
    worker = start(loss=gate.loss)
    aggregator.welcome()
    aggregator.receive(Ready)
    aggregator.parameters(5)
    aggregator.assign(5, 7)
    gate.wait_until_reached()
    aggregator.say(Stale(4))
    gate.open()
    assert aggregator.gradient()[0].iteration == 5
    finish(aggregator, worker)


def test_a_ticket_that_is_stale_before_it_is_begun_is_abandoned_unseen(aggregator, start):
    worker = start()
    aggregator.welcome()
    aggregator.receive(Ready)
    aggregator.assign(0, 7)
    aggregator.say(Stale(0))
    assert aggregator.receive(Abandoned).ticket == 7
    finish(aggregator, worker)
    assert worker.steps == []


def test_a_stale_batch_is_abandoned_between_micro_batches(aggregator, start, gate):
    worker = start({"training": TRAINING | {"accumulate": 4}}, loss=gate.loss)
    reach_the_gate(aggregator, gate)
    gate.hear = lambda: worker.session._member.wait(DEADLINE)
    aggregator.say(Stale(0))
    gate.open()
    aggregator.receive(Abandoned)
    finish(aggregator, worker)
    assert [s.micro_batch for s in worker.steps] == [0]


class Deep(nn.Module):
    """Two layers; the test is told, in backward, once the gradient of the upper one is final."""

    def __init__(self, told):
        super().__init__()
        self.lower, self.upper, self.told = nn.Linear(64, 64), nn.Linear(64, 64), told

    def forward(self, x):
        hidden = self.lower(x)
        if hidden.requires_grad:
            hidden.register_hook(self.on_backward)
        return self.upper(hidden)

    def on_backward(self, _):
        self.told()


def test_a_stale_batch_is_abandoned_in_the_middle_of_backward(aggregator, start, gate):
    model = Deep(lambda: gate.loss(nn.Linear(2, 1), (torch.ones(1, 2), torch.ones(1))))
    worker = start(model=model, dataset=[torch.ones(64)] * 8, loss=lambda m, batch: m(batch).sum())
    reach_the_gate(aggregator, gate)
    gate.hear = lambda: worker.session._member.wait(DEADLINE)
    aggregator.receive(Chunk)
    aggregator.say(Stale(0))
    gate.open()
    ended = aggregator.receive((Abandoned, Commit))
    assert isinstance(ended, Abandoned)
    assert all(p.grad is None for p in model.parameters())
    commit, gradient = aggregator.one_iteration(1, 1)
    assert len(gradient) == 2 * (64 * 64 + 64) * 4
    assert commit.finite
    finish(aggregator, worker)


def test_orders_to_leave_end_a_batch_even_if_it_was_to_run_to_the_end(aggregator, start, gate):
    worker = start(loss=gate.loss)
    reach_the_gate(aggregator, gate, to_the_end=True)
    gate.hear = lambda: worker.session._member.wait(DEADLINE)
    aggregator.dismiss("restart")
    gate.open()
    worker.join()
    assert worker.session.exit_code == 75
    assert not any(isinstance(m, Commit) for m in aggregator.heard)


def test_a_request_to_stop_ends_the_batch_and_says_goodbye(aggregator, start, gate):
    worker = start(loss=gate.loss)
    reach_the_gate(aggregator, gate)
    worker.stop.requested = True
    gate.open()
    assert isinstance(aggregator.receive((Goodbye, Commit), allow_ended=True), Goodbye)
    worker.join()
    assert worker.session.exit_code == 0


def test_the_rest_of_the_body_goes_on_after_its_batch_was_given_up(aggregator, start, gate):
    model, after = nn.Linear(2, 1), []

    def body(session):
        session.attach(model, [(torch.ones(2), torch.ones(1))] * 8)
        for _ in session:
            session.push(gate.loss(model, session.batch()))
            session.push(gate.loss(model, session.batch()) if not after else torch.ones(()))
            after.append(1)

    worker = start({"training": TRAINING | {"accumulate": 2}}, body=body, model=model)
    reach_the_gate(aggregator, gate)
    gate.hear = lambda: worker.session._member.wait(DEADLINE)
    aggregator.say(Stale(0))
    gate.open()
    aggregator.receive(Abandoned)
    finish(aggregator, worker)
    assert after == [1]


class TestInjectedSlowness:
    """The profile's step time stands where real slowness would, and ends when it becomes pointless."""

    def spec(self, **rest):
        return {"seed": 1, **rest}

    def test_a_step_takes_at_least_what_the_profile_says(self, aggregator, start):
        worker = start(injection=self.spec(stepSeconds=0.2))
        aggregator.welcome()
        commit, _ = aggregator.one_iteration(0, 0)
        assert commit.timing.injected == 0.2
        assert commit.timing.compute + commit.timing.data + commit.timing.push >= 0.2
        finish(aggregator, worker)

    def test_a_factor_stretches_what_the_step_really_took(self, aggregator, start):
        rules = [{"kind": "Persistent", "factor": 3.0, "ranks": [1]}]
        worker = start(injection=self.spec(rules=rules))
        aggregator.welcome()
        commit, _ = aggregator.one_iteration(0, 0)
        assert commit.timing.injected > 0
        assert commit.timing.compute >= 0.6 * commit.timing.injected
        finish(aggregator, worker)

    def test_a_hog_burns_the_cpu_instead_of_sleeping(self, aggregator, start):
        worker = start(injection=self.spec(stepSeconds=0.2, resource="Cpu"))
        aggregator.welcome()
        commit, _ = aggregator.one_iteration(0, 0)
        assert commit.timing.cpu + commit.timing.run_queue >= 0.1
        finish(aggregator, worker)

    def test_a_wait_that_became_pointless_ends_without_backward(self, aggregator, start):
        worker = start(injection=self.spec(stepSeconds=3600))
        aggregator.welcome()
        aggregator.receive(Ready)
        aggregator.parameters(0)
        aggregator.assign(0, 7)
        aggregator.say(Stale(0))
        assert isinstance(aggregator.receive((Abandoned, Chunk)), Abandoned)
        worker.stop.requested = True
        worker.join()

    def test_heartbeats_go_on_while_a_step_is_slow(self, aggregator, start):
        worker = start(injection=self.spec(stepSeconds=3600))
        aggregator.welcome()
        aggregator.receive(Ready)
        aggregator.parameters(0)
        aggregator.assign(0, 7)
        beats = []
        while len(beats) < 5:
            beat = aggregator.receive(Heartbeat)
            beats += [beat] if beat.phase == "compute" else []
        assert beats[0].progress < beats[-1].progress
        worker.stop.requested = True
        worker.join()
