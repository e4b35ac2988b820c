"""What survives the loss of a connection, and whose word counts afterwards."""

import pytest
import torch
from torch import nn

from backupsync.errors import Refused
from backupsync.wire.messages import (
    Chunk,
    Commit,
    Evaluated,
    Heartbeat,
    Hello,
    Initial,
    Parameters,
    Proof,
    Ready,
    RefusalCode,
)
from backupsync.wire.messages import Refused as RefusedMessage
from backupsync_worker.connection.membership import StartAgain

QUICK = {"workers": 2, "wire": {"heartbeatSeconds": 0.05, "timeoutSeconds": 0.6}}


def finish(aggregator, worker):
    aggregator.receive(Ready)
    aggregator.dismiss()
    worker.join()


def test_a_cut_connection_is_answered_by_joining_anew_as_the_same_process(aggregator, start):
    worker = start()
    first = aggregator.welcome()
    aggregator.one_iteration(0, 0)
    aggregator.shut()
    aggregator.open()
    second = aggregator.welcome()
    assert (first.incarnation, first.start) == (second.incarnation, second.start)
    assert aggregator.receive(Ready).holds == -1
    assert aggregator.one_iteration(5, 9)[0].iteration == 5
    finish(aggregator, worker)


def test_the_gradient_under_way_is_discarded_with_its_connection(aggregator, start, gate):
    worker = start(loss=gate.loss)
    aggregator.welcome()
    aggregator.receive(Ready)
    aggregator.parameters(0)
    aggregator.assign(0, 0)
    gate.wait_until_reached()
    aggregator.shut()
    aggregator.open()
    aggregator.heard.clear()
    gate.open()
    aggregator.welcome()
    aggregator.receive(Ready)
    assert not any(isinstance(m, Chunk | Commit) for m in aggregator.heard)
    finish(aggregator, worker)


def test_a_connection_the_aggregator_does_not_know_is_given_up(aggregator, start):
    worker = start()
    aggregator.welcome()
    aggregator.receive(Ready)
    aggregator.say(RefusedMessage(RefusalCode.NOT_JOINED, "say HELLO first"))
    aggregator.welcome()
    finish(aggregator, worker)


def test_a_lower_epoch_is_refused_and_a_higher_one_followed(aggregator, start):
    worker = start()
    aggregator.welcome(epoch=4)
    aggregator.receive(Ready)
    aggregator.shut()
    aggregator.open()
    aggregator.heard.clear()
    aggregator.greet(epoch=3)
    aggregator.receive(Hello)
    assert not any(isinstance(m, Proof) for m in aggregator.heard)
    aggregator.welcome(epoch=5)
    assert aggregator.one_iteration(0, 0)[0].epoch == 5
    finish(aggregator, worker)


def test_parameters_and_tickets_of_another_epoch_are_ignored(aggregator, start):
    worker = start()
    aggregator.welcome(epoch=4)
    aggregator.receive(Ready)
    aggregator.epoch = 3
    aggregator.parameters(8)
    aggregator.assign(8, 1)
    aggregator.epoch = 4
    commit, _ = aggregator.one_iteration(2, 6)
    assert (commit.iteration, commit.epoch) == (2, 4)
    finish(aggregator, worker)


def test_a_silent_aggregator_is_asked_and_a_living_one_keeps_its_worker(aggregator, start):
    worker = start({"aggregation": QUICK})
    aggregator.welcome()
    route = aggregator.route
    for _ in range(3):
        aggregator.greet()
        assert aggregator.route == route
    assert aggregator.one_iteration(0, 0)[0].finite
    finish(aggregator, worker)


def test_a_silent_aggregator_that_does_not_answer_is_joined_anew(aggregator, start):
    worker = start({"aggregation": QUICK})
    aggregator.welcome()
    route = aggregator.route
    aggregator.receive(Hello)
    assert aggregator.route == route
    aggregator.welcome()
    assert aggregator.route != route
    finish(aggregator, worker)


def test_silence_while_computing_is_nobodys_fault(aggregator, start, gate):
    worker = start({"aggregation": QUICK}, loss=gate.loss)
    aggregator.welcome()
    route = aggregator.route
    aggregator.receive(Ready)
    aggregator.parameters(0)
    aggregator.assign(0, 0)
    gate.wait_until_reached()
    phases = []
    while phases.count("compute") < 30:
        phases.append(aggregator.receive(Heartbeat).phase)
    gate.open()
    assert aggregator.gradient()[0].finite
    assert aggregator.route == route
    finish(aggregator, worker)


def test_heartbeats_tell_a_working_thread_from_one_that_stands_still(aggregator, start, gate):
    worker = start(loss=gate.loss)
    aggregator.welcome()
    while aggregator.receive(Heartbeat).phase != "waiting":
        pass  # the small thread may speak before the working one has got that far
    waiting = [aggregator.receive(Heartbeat) for _ in range(3)]
    assert {h.phase for h in waiting} == {"waiting"}
    assert waiting[0].progress < waiting[1].progress < waiting[2].progress
    aggregator.parameters(0)
    aggregator.assign(0, 0)
    gate.wait_until_reached()
    while aggregator.receive(Heartbeat).phase != "compute":
        pass
    standing = [aggregator.receive(Heartbeat) for _ in range(3)]
    assert len({h.progress for h in standing}) == 1
    gate.open()
    aggregator.gradient()
    finish(aggregator, worker)


def test_being_fenced_on_a_connection_ends_the_worker(aggregator, start):
    worker = start()
    aggregator.welcome()
    aggregator.receive(Ready)
    aggregator.say(RefusedMessage(RefusalCode.DUPLICATE, "start 1 has joined"))
    with pytest.raises(Refused, match="start 1 has joined"):
        worker.join()


def test_one_message_that_could_not_be_used_does_not_end_the_worker(aggregator, start):
    worker = start()
    aggregator.welcome()
    aggregator.one_iteration(0, 0)
    aggregator.say(RefusedMessage(RefusalCode.MALFORMED, "no examples"))
    assert aggregator.one_iteration(0, 1)[0].ticket == 1
    finish(aggregator, worker)


def test_a_leave_that_is_the_last_word_before_the_end_of_the_connection_is_heard(aggregator, start, gate):
    worker = start(loss=gate.loss)
    aggregator.welcome()
    aggregator.receive(Ready)
    aggregator.parameters(0)
    aggregator.assign(0, 0)
    gate.wait_until_reached()
    aggregator.dismiss("suspended")
    aggregator.shut()
    gate.open()
    worker.join()
    assert worker.session.exit_code == 0
    aggregator.open()


def test_a_trained_worker_does_not_pass_its_parameters_off_as_the_first(aggregator, start):
    worker = start()
    aggregator.welcome()
    aggregator.one_iteration(0, 0)
    aggregator.receive(Ready)
    aggregator.shut()
    aggregator.open()
    aggregator.heard.clear()
    aggregator.welcome(epoch=2, send_initial=True)
    with pytest.raises(StartAgain):
        worker.join()
    assert not any(isinstance(m, Initial) for m in aggregator.heard)


def test_frozen_tensors_come_again_with_a_new_connection(aggregator, start):
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    worker = start(model=model)
    aggregator.welcome()
    aggregator.parameters(0, section="frozen")
    aggregator.one_iteration(0, 0)
    aggregator.receive(Ready)
    aggregator.shut()
    aggregator.open()
    aggregator.welcome()
    ones = torch.zeros(16)
    ones[:4] = 1.0
    aggregator.parameters(0, ones.numpy().tobytes(), section="frozen")
    aggregator.one_iteration(0, 1)
    assert torch.equal(model[0].weight, torch.ones(2, 2))
    finish(aggregator, worker)


def test_parameters_cut_off_half_way_are_not_used(aggregator, start):
    worker = start()
    aggregator.welcome()
    aggregator.receive(Ready)
    total = aggregator.schema.section_bytes(aggregator.schema.moving)
    aggregator.say(Parameters(1, 0, "moving", 0, total), bytes(total // 2))
    aggregator.assign(0, 0)
    assert [aggregator.receive((Ready, Commit, Evaluated)).holds for _ in range(3)] == [-1] * 3
    aggregator.parameters(0)
    assert aggregator.gradient()[0].iteration == 0
    finish(aggregator, worker)
