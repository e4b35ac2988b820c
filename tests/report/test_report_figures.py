"""What a report says about a run, figure by figure, on traces written by hand."""

import pytest

from backupsync.report import from_trace
from backupsync.trace import Ended, Evaluation, Gradient, Header, Iteration, Membership, Resized, TraceError


def header(mode="BackupSync", workers=2, backups=1, **more):
    aggregation = {"mode": mode, "workers": workers, "backupWorkers": backups}
    manifest = {"spec": {"aggregation": aggregation}}
    return Header(job="digits", uid="u", manifest=manifest, started=0, initial_digest="", threads=1, **more)


def gradient(iteration, rank, ticket, outcome="accepted", **more):
    more = {"at": 0.0, "attempt": 1, "examples": 8} | more
    return Gradient(iteration=iteration, rank=rank, ticket=ticket, outcome=outcome, **more)


def update(iteration, at, seconds=1.0, examples=None, **more):
    more = {"required": 2, "accepted": 2, "live": 3} | more
    done = examples if examples is not None else 16 * (iteration + 1)
    return Iteration(at=at, iteration=iteration, seconds=seconds, examples=done, **more)


def test_the_runs_name_mode_and_size_come_from_the_header():
    report = from_trace([header("Sync", 3, 0)])
    assert (report.name, report.mode, report.required, report.backup_workers) == ("digits", "Sync", 3, 0)
    assert from_trace([header()], name="mine").name == "mine"


def test_a_trace_without_its_header_is_refused():
    for lines in ([], [update(0, 1.0)]):
        with pytest.raises(TraceError, match="does not begin with its header"):
            from_trace(lines)


def test_a_run_that_never_began_has_no_figures_but_a_reason():
    ended = Ended(at=1, iteration=0, outcome="Failed", reason="BelowQuorum", message="no workers")
    report = from_trace([header(), ended])
    assert (report.iterations, report.examples, report.wall_seconds) == (0, 0, 0.0)
    assert report.iteration_seconds is None and report.ideal_seconds is None
    assert (report.coverage, report.dropped_ratio, report.final) == (0.0, 0.0, {})
    assert (report.outcome, report.reason, report.message) == ("Failed", "BelowQuorum", "no workers")


def test_wall_time_runs_from_the_beginning_of_the_first_iteration_to_the_last_update():
    report = from_trace([header(), update(0, at=12.0, seconds=2.0), update(1, at=15.0)])
    assert report.wall_seconds == 5.0, "starting processes for 10 s is not training"
    assert report.examples == 32
    assert report.examples_per_second == pytest.approx(32 / 5.0)


def test_iteration_time_is_given_by_quantiles_and_mean():
    lines = [update(i, at=float(i), seconds=float(i)) for i in range(101)]
    seconds = from_trace([header(), *lines]).iteration_seconds
    assert (seconds.p50, seconds.p90, seconds.p99, seconds.mean) == (50.0, 90.0, 99.0, 50.0)


def test_every_rank_is_counted_with_all_its_attempts():
    report = from_trace([
        header(),
        gradient(0, 0, 0),
        gradient(0, 2, 1, "dropped", reason="late"),
        gradient(1, 2, 2, "refused", reason="not-finite", attempt=2),
        gradient(1, 2, 3, attempt=2),
        Membership(at=0, iteration=0, rank=2, attempt=1, event="lost"),
    ])  # fmt: skip
    zero, two = report.workers
    assert (zero.rank, zero.accepted, zero.dropped, zero.refused, zero.attempts) == (0, 1, 0, 0, 1)
    assert (two.rank, two.accepted, two.dropped, two.refused, two.attempts) == (2, 1, 1, 1, 2)
    assert report.dropped_ratio == 0.25


def test_compute_time_is_judged_by_the_batches_drawn_to_run_to_the_end():
    fast = [gradient(i, 0, i, compute_seconds=1.0) for i in range(10)]
    late = [
        gradient(i, 0, i, "dropped", reason="late", compute_seconds=3.0, to_the_end=True)
        for i in range(10, 15)
    ]
    given_up = [gradient(15, 0, 15, "dropped", reason="abandoned", compute_seconds=0.1, to_the_end=True)]
    assert from_trace([header(), *fast, *late, *given_up]).workers[0].compute_seconds_p50 == 3.0
    assert from_trace([header(), *fast, *late[:4]]).workers[0].compute_seconds_p50 == 1.0, "too few of them"
    assert from_trace([header(), *given_up]).workers[0].compute_seconds_p50 is None


def test_coverage_is_the_share_of_handed_out_batches_that_were_applied():
    lines = [gradient(0, 0, 0), gradient(0, 1, 1), gradient(0, 2, 2, "dropped"), gradient(1, 0, 4)]
    report = from_trace([header(batches_per_epoch=2), *lines])
    assert report.coverage == 3 / 5, "ticket 3 was handed to somebody who died"
    assert report.passes == 1.5


def test_a_requeued_batch_that_was_applied_later_is_covered():
    lines = [gradient(0, 0, 0), gradient(0, 1, 1, "dropped"), gradient(1, 0, 1)]
    assert from_trace([header(), *lines]).coverage == 1.0


def test_batches_still_computed_at_the_end_are_not_held_against_coverage():
    ended = [gradient(1, rank, ticket, "dropped", reason="ended") for rank, ticket in ((1, 1), (2, 3))]
    assert from_trace([header(), gradient(0, 0, 0), gradient(1, 0, 2), *ended]).coverage == 1.0


def test_arrivals_are_ordered_within_each_iteration_and_leave_out_what_never_came():
    report = from_trace([
        header(),
        gradient(0, 0, 0, arrival_seconds=2.0),
        gradient(0, 1, 1, arrival_seconds=1.0),
        gradient(0, 2, 2, "dropped", reason="late", arrival_seconds=5.0),
        gradient(1, 0, 3, arrival_seconds=3.0),
        gradient(1, 1, 4, arrival_seconds=4.0),
        gradient(1, 2, 5, "dropped", reason="abandoned", arrival_seconds=4.5),
    ])  # fmt: skip
    assert [(a.k, a.count, a.mean, a.p50) for a in report.arrivals] == [
        (1, 2, 2.0, 2.0),
        (2, 2, 3.0, 3.0),
        (3, 1, 5.0, 5.0),
    ]


def test_the_ideal_follows_a_replacement_and_a_resize():
    profile = {
        "stepSeconds": 1.0,
        "rules": [{"kind": "Persistent", "factor": 3.0, "ranks": [0], "nodes": ["node-0"]}],
    }
    report = from_trace([
        header("Sync", 2, 0, injection=profile),
        gradient(0, 0, 0), gradient(0, 1, 1), update(0, 1.0),
        gradient(1, 0, 2, attempt=2), gradient(1, 1, 3), update(1, 2.0),
        Resized(at=2.0, iteration=2, required=3, backups=0),
        gradient(2, 2, 5), update(2, 3.0, required=3, accepted=3),
    ])  # fmt: skip
    assert report.ideal_quantiles[0] == 1.0
    assert report.ideal_seconds.mean == pytest.approx((3.0 + 1.0 + 1.0) / 3)


def test_an_iteration_of_fewer_at_the_end_of_the_data_is_compared_with_as_few():
    profile = {"stepSeconds": 1.0, "rules": [{"kind": "Persistent", "factor": 9.0, "ranks": [1]}]}
    last = update(0, 1.0, accepted=1, note="EndOfData")
    assert from_trace([header("Sync", 2, 0, injection=profile), last]).ideal_seconds.p50 == 1.0


def test_without_absolute_injected_times_there_is_no_ideal():
    for injection in (None, {"rules": []}):
        assert from_trace([header(injection=injection), update(0, 1.0)]).ideal_seconds is None


def test_async_reports_staleness_and_neither_ideal_nor_arrivals():
    report = from_trace([
        header("Async", 2, 0, injection={"stepSeconds": 1.0}),
        gradient(0, 0, 0, applied_at=0, arrival_seconds=1.0), update(0, 1.0, required=1, accepted=1),
        gradient(0, 1, 1, applied_at=1, arrival_seconds=1.0), update(1, 1.1, required=1, accepted=1),
        gradient(1, 0, 2, applied_at=4, arrival_seconds=1.0), update(2, 2.0, required=1, accepted=1),
    ])  # fmt: skip
    assert (report.staleness.mean, report.staleness.max) == (pytest.approx(4 / 3), 3)
    assert report.ideal_seconds is None
    assert report.arrivals == []
    assert from_trace([header()]).staleness is None


def test_final_is_the_newest_evaluation_with_the_training_loss_unless_it_has_its_own():
    evaluated = Evaluation(at=2.0, iteration=1, rank=0, metrics={"accuracy": 0.9})
    failed = Evaluation(at=3.0, iteration=1, rank=0, error="deadline")
    lines = [header(), update(0, 1.0, loss=0.5), evaluated, failed]
    assert from_trace(lines).final == {"accuracy": 0.9, "loss": 0.5}
    own = Evaluation(at=4.0, iteration=1, rank=0, metrics={"loss": 0.7})
    assert from_trace([*lines, own]).final == {"loss": 0.7}


def test_evaluations_stand_where_their_parameters_were_made():
    evaluated = Evaluation(at=13.0, iteration=1, rank=0, metrics={"accuracy": 0.9})
    (point,) = from_trace([header(), update(0, at=12.0, seconds=2.0), evaluated]).evaluations
    assert (point.wall_seconds, point.iteration, point.examples) == (2.0, 1, 16)


def test_the_curve_is_bounded_and_averages_what_it_joins():
    lines = [update(i, at=float(i + 1), loss=float(i)) for i in range(1200)]
    curve = from_trace([header(), *lines]).curve
    assert len(curve) == 500
    assert curve[0].loss == 1.0, "of iterations 0, 1 and 2"
    assert (curve[-1].wall_seconds, curve[-1].examples) == (1200.0, 16 * 1200)


def test_a_bias_of_what_is_dropped_shows_within_iterations():
    lines = [
        gradient(0, 0, 0, loss=2.0), gradient(0, 1, 1, "dropped", reason="late", loss=3.0, examples=4),
        gradient(1, 0, 2, loss=1.0), gradient(1, 1, 3, "dropped", reason="late", loss=1.5, examples=4),
        gradient(2, 1, 4, "dropped", reason="abandoned"),
    ]  # fmt: skip
    report = from_trace([header(), *lines])
    assert report.loss_difference == 0.75
    dropped, accepted = report.batches["dropped"], report.batches["accepted"]
    assert (dropped.count, dropped.examples_mean, dropped.loss_mean) == (3, 4.0, 2.25)
    assert (accepted.count, accepted.examples_mean, accepted.loss_mean) == (2, 8.0, 1.5)


def test_time_to_a_metric_is_reached_from_the_side_that_is_worse():
    lines = [header()]
    for i, (accuracy, loss) in enumerate([(0.5, 2.0), (0.96, 0.4), (0.9, 0.2)]):
        metrics = {"accuracy": accuracy, "test/loss": loss}
        lines += [update(i, at=i + 1.0, loss=loss * 2)]
        lines += [Evaluation(at=i + 1.5, iteration=i + 1, rank=0, metrics=metrics)]
    report = from_trace(lines)
    assert report.time_to("accuracy", 0.95) == 2.0
    assert report.time_to("accuracy", 0.99) is None
    assert report.time_to("test/loss", 0.4) == 2.0
    assert report.time_to("loss", 0.5) == 3.0, "no evaluation has it: the training curve does"
    assert report.time_to("f1", 0.1) is None
