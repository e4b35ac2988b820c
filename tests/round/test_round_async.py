"""Async: every gradient is its own update, however stale, up to maxStaleness."""

from round_dsl import Job

from backupsync.trace import Gradient, Iteration
from backupsync_aggregator.round import Member


def asynchronous(workers=3, **how):
    return Job(workers, mode="Async", **how).start()


def test_each_gradient_is_applied_at_once():
    job = asynchronous()
    (update,) = job.commit(0).updates
    assert (update.iteration, len(update.contributions)) == (0, 1)
    assert job.round.iteration == 1


def test_training_starts_together_once_n_are_live():
    job = Job(workers=2, mode="Async")
    assert job.enter(0).assigned == []
    assert job.enter(1).assigned == [Member(0, 1), Member(1, 1)]


def test_a_worker_goes_on_with_the_newest_parameters_without_waiting():
    job = asynchronous()
    job.commit(1)
    job.commit(0)
    assert job.ready(0).assigned == [Member(0, 1)]
    assert job.assignments[Member(0, 1)].iteration == 2
    assert job.assignments[Member(0, 1)].send_parameters


def test_staleness_is_measured():
    job = asynchronous()
    job.push(0, 1, 0)
    heard = job.commit(2)
    (line,) = heard.lines(Gradient)
    assert (line.iteration, line.applied_at) == (0, 3)
    (contribution,) = heard.updates[0].contributions
    assert contribution.iteration == 0
    assert heard.updates[0].iteration == 3


def test_a_gradient_beyond_max_staleness_is_dropped():
    job = asynchronous(aggregation={"maxStaleness": 1})
    job.push(0)
    assert job.commit(1).updates
    assert job.commit(2).told == [(2, "stale")]
    assert job.ready(2).assigned


def test_without_max_staleness_any_gradient_is_applied():
    job = asynchronous()
    for _ in range(50):
        job.push(0)
    assert job.commit(2).updates


def test_nobody_is_told_to_abandon():
    job = asynchronous()
    assert job.push(0).noticed == []


def test_an_update_needs_one_gradient_and_says_so():
    job = asynchronous()
    assert job.round.required == 1
    (line,) = job.commit(0).lines(Iteration)
    assert (line.required, line.accepted, line.note) == (1, 1, None)


def test_losing_workers_stops_nobody():
    job = asynchronous()
    job.leave(0)
    job.leave(1)
    assert job.push(2).updates
    job.leave(2)
    assert job.round.reason == "BelowQuorum"


def test_a_refusal_comes_with_the_newest_parameters():
    job = asynchronous()
    job.push(0)
    job.commit(1, finite=False)
    assert job.assignments[Member(1, 1)].iteration == 1
    assert job.assignments[Member(1, 1)].send_parameters


def test_it_ends_at_the_same_examples_as_the_other_modes():
    job = asynchronous(training={"examples": 12})
    job.push(0, 1, 2)
    assert job.round.phase == "Evaluating"
    assert (job.round.iteration, job.round.examples) == (3, 12)


def test_a_stale_first_gradient_promotes_a_candidate():
    job = asynchronous(workers=2)
    job.scale(2, 0, range(2), candidates=[(0, 2)])
    job.enter((0, 2))
    job.push(1)
    assert job.commit((0, 2)).dismissed == [(Member(0, 1), "fenced")]


def test_others_train_on_during_an_evaluation():
    job = asynchronous(training={"evaluation": {"everyIterations": 1}})
    assert job.push(0).evaluating == [0]
    assert job.push(1).updates


def test_the_only_worker_pauses_for_an_evaluation():
    job = asynchronous(workers=1, training={"evaluation": {"everyIterations": 1}})
    assert job.push(0).evaluating == [0]
    job.evaluated(0, loss=1.0)
    assert job.ready(0).assigned


def test_the_end_of_the_data_ends_it():
    job = asynchronous(workers=2)
    job.exhaust(0)
    job.push(1)
    job.exhaust(1)
    assert job.round.reason == "EndOfData"
