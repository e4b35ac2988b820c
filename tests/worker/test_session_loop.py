"""One iteration of a worker, as an aggregator sees it, and what the loop's body may do."""

import hashlib
import math

import pytest
import torch
from torch import nn

from backupsync.errors import ProgramError
from backupsync.wire.messages import Abandoned, Chunk, Commit, Exhausted, Goodbye, Initial, InitialDone, Ready
from backupsync_worker.data.batches import Batches
from backupsync_worker.tensors.compute import compute_gradient
from backupsync_worker.tensors.flat_model import FlatModel

TRAINING = {"iterations": 10, "batchSize": 4, "seed": 3, "optimizer": {"name": "SGD", "lr": 0.1}}


def data():
    return [(torch.tensor([float(i), 1.0]), torch.tensor([float(i)])) for i in range(32)]


def square(model, batch):
    x, y = batch
    return ((model(x) - y) ** 2).mean()


def finish(aggregator, worker):
    aggregator.receive(Ready)
    aggregator.dismiss()
    worker.join()


def test_a_worker_joins_computes_pushes_and_leaves(aggregator, start):
    worker = start()
    hello = aggregator.welcome()
    assert (hello.job, hello.rank, hello.attempt, hello.start) == ("uid-1", 1, 0, 0)
    commit, gradient = aggregator.one_iteration(0, 17)
    assert (commit.epoch, commit.attempt, commit.iteration, commit.ticket) == (1, 0, 0, 17)
    assert (commit.examples, commit.finite, commit.scale, commit.absent) == (4, True, 1.0, ())
    assert len(gradient) == 3 * 4
    finish(aggregator, worker)
    assert worker.session.exit_code == 0


def test_what_is_pushed_is_the_one_computation_that_replay_repeats(aggregator, start):
    model = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Linear(4, 1))
    moving = FlatModel(model, "float32", 4096).initial()[0]
    training = TRAINING | {"accumulate": 2}
    worker = start({"training": training}, model=model)
    aggregator.welcome()
    aggregator.receive(Ready)
    aggregator.parameters(0, bytes(moving))
    aggregator.assign(0, 5)
    commit, pushed = aggregator.gradient()
    pushed_buffers = aggregator.payload

    flat = FlatModel(model, "float32", 4096)
    flat.load("moving", moving)
    chunks = bytearray()
    again = compute_gradient(
        flat, lambda batch: square(model, batch), Batches(data(), 4, 3, micro_batches=2).get(5), 3, 5, "None",
        lambda _, chunk: chunks.extend(chunk), lambda: None,
    )  # fmt: skip
    assert bytes(chunks) == pushed
    assert (again.loss, again.norm, again.examples) == (commit.loss, commit.norm, commit.examples)
    assert bytes(flat.buffers()) == pushed_buffers
    finish(aggregator, worker)


def test_the_first_member_gives_its_initial_state_in_chunks(aggregator, start):
    model = nn.Linear(40, 50)
    expected = FlatModel(model, "float32", 4096).initial()
    worker = start(model=model)
    aggregator.welcome(send_initial=True)
    moving = bytearray()
    while isinstance(message := aggregator.receive((Initial, InitialDone)), Initial):
        assert (message.section, message.offset) == ("moving", len(moving))
        assert len(aggregator.payload) <= 4096
        moving += aggregator.payload
    assert bytes(moving) == bytes(expected[0])
    assert message.digest == hashlib.sha256(bytes(expected[0]) + bytes(expected[1])).digest()
    assert message.batches_per_epoch == 8
    finish(aggregator, worker)


def test_parameters_in_chunks_are_in_the_model_when_the_body_runs(aggregator, start):
    model = nn.Linear(40, 50)
    seen = []
    worker = start(
        model=model,
        dataset=[torch.ones(40)] * 8,
        loss=lambda m, batch: (seen.append(m.weight.detach().clone()), m(batch).sum())[1],
    )
    aggregator.welcome()
    aggregator.receive(Ready)
    total = aggregator.schema.section_bytes(aggregator.schema.moving)
    values = torch.arange(total // 4, dtype=torch.float32).numpy().tobytes()
    aggregator.parameters(3, values, parts=3)
    aggregator.assign(3, 0)
    aggregator.gradient()
    assert torch.equal(seen[0].flatten(), torch.arange(2000, dtype=torch.float32))
    assert aggregator.receive(Ready).holds == 3
    finish(aggregator, worker)


def test_frozen_tensors_are_awaited_before_the_first_gradient(aggregator, start):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    worker = start(model=model)
    aggregator.welcome()
    aggregator.receive(Ready)
    aggregator.parameters(0)
    aggregator.assign(0, 0)
    aggregator.receive(Ready)
    aggregator.parameters(0, section="frozen")
    aggregator.gradient()
    assert not any(isinstance(m, Commit | Chunk) for m in aggregator.heard[:-2])
    assert not model[0].weight.any()
    finish(aggregator, worker)


def test_a_second_ticket_of_one_iteration_needs_no_parameters_and_finds_clean_buffers(aggregator, start):
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    worker = start(model=model)
    aggregator.welcome()
    aggregator.receive(Ready)
    aggregator.parameters(0)
    aggregator.assign(0, 0)
    aggregator.gradient()
    first = aggregator.payload
    aggregator.assign(0, 0 + 8 * 4)
    aggregator.gradient()
    aggregator.assign(0, 0)
    commit, _ = aggregator.gradient()
    assert commit.ticket == 0
    assert aggregator.payload == first
    finish(aggregator, worker)


def test_the_same_ticket_is_not_computed_twice_in_a_row(aggregator, start):
    worker = start()
    aggregator.welcome()
    aggregator.one_iteration(0, 4)
    aggregator.assign(0, 4)
    aggregator.parameters(1)
    aggregator.assign(1, 5)
    commit, _ = aggregator.gradient()
    assert commit.ticket == 5
    finish(aggregator, worker)


def test_ready_is_repeated_until_it_is_answered(aggregator, start):
    worker = start()
    aggregator.welcome()
    for _ in range(3):
        assert aggregator.receive(Ready).holds == -1
    finish(aggregator, worker)


def test_with_accumulation_every_pass_of_the_loop_is_one_micro_batch(aggregator, start):
    worker = start({"training": TRAINING | {"accumulate": 4}})
    aggregator.welcome()
    commit, _ = aggregator.one_iteration(2, 9)
    assert commit.examples == 4
    finish(aggregator, worker)
    assert [(s.iteration, s.ticket, s.micro_batch) for s in worker.steps] == [(2, 9, i) for i in range(4)]


def test_one_pass_may_push_every_micro_batch_itself(aggregator, start):
    model = nn.Linear(2, 1)

    def body(session):
        session.attach(model, data())
        for _ in session:
            session.push(square(model, session.batch()))
            session.push(square(model, session.batch()))

    worker = start({"training": TRAINING | {"accumulate": 2}}, body=body, model=model)
    aggregator.welcome()
    assert aggregator.one_iteration(0, 0)[0].examples == 4
    finish(aggregator, worker)


def test_data_given_with_batch_is_used_from_then_on(aggregator, start):
    model, dataset = nn.Linear(2, 1), data()

    def body(session):
        session.attach(model)
        for _ in session:
            session.push(square(model, session.batch(dataset)))

    worker = start(body=body, model=model)
    aggregator.welcome()
    assert aggregator.receive(Ready).batches_per_epoch is None
    aggregator.parameters(0)
    aggregator.assign(0, 0)
    assert aggregator.gradient()[0].examples == 4
    assert aggregator.receive(Ready).batches_per_epoch == 8
    finish(aggregator, worker)


def test_a_loop_may_bring_batches_of_its_own(aggregator, start):
    model = nn.Linear(2, 1)

    def body(session):
        session.attach(model)
        for _ in session:
            session.push(model(torch.ones(4, 2)).sum())

    worker = start(body=body, model=model)
    aggregator.welcome()
    assert aggregator.one_iteration(0, 0)[0].examples == 4
    finish(aggregator, worker)


def test_clipping_travels_as_a_scale(aggregator, start):
    worker = start({"training": TRAINING | {"clipNorm": 0.5}})
    aggregator.welcome()
    commit, _ = aggregator.one_iteration(0, 0)
    assert commit.norm > 0.5
    assert commit.scale == pytest.approx(0.5 / commit.norm)
    finish(aggregator, worker)


def test_a_gradient_that_is_not_finite_is_committed_as_such(aggregator, start):
    worker = start(loss=lambda model, batch: square(model, batch) * float("nan"))
    aggregator.welcome()
    commit, _ = aggregator.one_iteration(0, 0)
    assert not commit.finite
    assert math.isnan(commit.loss)
    assert commit.scale == 1.0
    finish(aggregator, worker)


def test_logged_numbers_travel_with_the_next_whole_gradient(aggregator, start):
    model = nn.Linear(2, 1)

    def body(session):
        session.attach(model, data())
        for step in session:
            session.log(before=torch.tensor(step.iteration))
            session.push(square(model, session.batch()))
            session.log(after=True)

    worker = start(body=body, model=model)
    aggregator.welcome()
    assert aggregator.one_iteration(1, 0)[0].metrics == {"before": 1.0}
    assert aggregator.one_iteration(2, 1)[0].metrics == {"before": 2.0, "after": 1.0}
    finish(aggregator, worker)


@pytest.mark.parametrize("value", ["high", None, [1.0], torch.ones(2)])
def test_what_is_no_number_cannot_be_logged(aggregator, start, value):
    worker = start(body=lambda session: session.log(accuracy=value))
    with pytest.raises(ProgramError, match=r"accuracy is a .*must be one number"):
        worker.join()


def test_more_than_64_names_cannot_be_logged(aggregator, start):
    worker = start(body=lambda session: session.log(**{f"m{i}": i for i in range(65)}))
    with pytest.raises(ProgramError, match="at most 64"):
        worker.join()


def test_data_that_runs_out_is_said_and_the_worker_stays(aggregator, start):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from data()[:4]

    spec = {"aggregation": {"workers": 1, "wire": {"heartbeatSeconds": 0.05, "timeoutSeconds": 5}}}
    worker = start(spec, dataset=Stream(), rank=0)
    aggregator.welcome()
    aggregator.one_iteration(0, 0)
    aggregator.receive(Ready)
    aggregator.parameters(1)
    aggregator.assign(1, 1)
    exhausted = aggregator.receive(Exhausted)
    assert (exhausted.iteration, exhausted.ticket) == (1, 1)
    finish(aggregator, worker)
    assert len(worker.steps) == 1


def test_gradients_travel_in_bfloat16_when_the_wire_is_bfloat16(aggregator, start):
    wire = {"dtype": "bfloat16", "heartbeatSeconds": 0.05, "timeoutSeconds": 5}
    worker = start({"aggregation": {"workers": 2, "wire": wire}})
    aggregator.welcome()
    assert len(aggregator.one_iteration(0, 0)[1]) == 3 * 2
    finish(aggregator, worker)


def test_autocast_is_on_in_the_body_and_off_in_backward_and_after(aggregator, start):
    seen = []
    worker = start(
        {"training": TRAINING | {"autocast": "bfloat16"}},
        loss=lambda model, batch: (seen.append(model(batch[0]).dtype), square(model, batch))[1],
    )
    aggregator.welcome()
    aggregator.one_iteration(0, 0)
    finish(aggregator, worker)
    assert seen == [torch.bfloat16]
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda s: list(s), "before attach"),
        (lambda s: s.push(torch.ones(())), "outside the loop"),
        (lambda s: s.batch(), "outside the loop"),
    ],
)
def test_calls_out_of_order_are_errors(aggregator, start, body, message):
    worker = start(body=body)
    with pytest.raises(ProgramError, match=message):
        worker.join()


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (lambda session, model: session.batch(), "without session.push"),
        (lambda session, model: [session.batch(), session.batch()], "batch\\(\\) was called 2 times"),
        (lambda session, model: session.push(1.0), "must be a tensor"),
        (lambda session, model: session.push(model(session.batch()[0])), "must be one floating-point number"),
        (lambda session, model: session.push(torch.ones(())), "does not depend on a trainable parameter"),
    ],
)
def test_misuse_within_the_loop_is_said_in_clear_words(aggregator, start, misuse, message):
    model = nn.Linear(2, 1)

    def body(session):
        session.attach(model, data())
        for _ in session:
            misuse(session, model)

    worker = start(body=body, model=model)
    aggregator.welcome()
    aggregator.receive(Ready)
    aggregator.parameters(0)
    aggregator.assign(0, 0)
    with pytest.raises(ProgramError, match=message):
        worker.join()


def test_a_job_that_counts_epochs_needs_its_data_when_it_joins(aggregator, start):
    training = {k: v for k, v in TRAINING.items() if k != "iterations"} | {"epochs": 2}
    worker = start({"training": training}, body=lambda session: session.attach(nn.Linear(2, 1)))
    with pytest.raises(ProgramError, match=r"spec.training.epochs.*pass the dataset to attach"):
        worker.join()


def test_a_model_without_memory_is_refused_by_the_name_of_its_tensor(aggregator, start):
    worker = start(body=lambda session: session.attach(nn.Linear(2, 1, device="meta"), data()))
    with pytest.raises(ProgramError, match="'weight': is on the meta device"):
        worker.join()


def test_a_session_trains_one_model(aggregator, start):
    def body(session):
        session.attach(nn.Linear(2, 1), data())
        session.attach(nn.Linear(2, 1), data())

    worker = start(body=body)
    aggregator.welcome()
    with pytest.raises(ProgramError, match="attach\\(\\) was called twice"):
        worker.join()


def test_a_loop_that_raises_says_goodbye_with_the_reason(aggregator, start):
    def loss(model, batch):
        raise ValueError("no such column")

    worker = start(loss=loss)
    aggregator.welcome()
    aggregator.receive(Ready)
    aggregator.parameters(0)
    aggregator.assign(0, 0)
    assert aggregator.receive(Goodbye, allow_ended=True).reason == "ValueError: no such column"
    with pytest.raises(ValueError, match="no such column"):
        worker.join()


def test_abandoned_and_whole_gradients_are_followed_by_ready(aggregator, start):
    worker = start()
    aggregator.welcome()
    aggregator.one_iteration(0, 0)
    assert isinstance(aggregator.receive((Ready, Abandoned)), Ready)
    finish(aggregator, worker)
