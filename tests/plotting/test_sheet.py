"""The sheet of pictures: what it shows, and what it refuses."""

import msgspec
import pytest

from backupsync.cli.plot import named_apart
from backupsync.plotting import PlotError, plot
from backupsync.plotting.sheet import COLOURS, draw
from backupsync.report import Arrival, CurvePoint, EvaluationPoint, Quantiles, Report, WorkerReport


def report(name: str = "digits", mode: str = "BackupSync", workers: int = 6, evaluations: int = 5) -> Report:
    scale = 0.1 if mode == "BackupSync" else 0.2
    arrivals = [
        Arrival(k=k, count=9, mean=k * 0.02, p10=k * 0.01, p50=k * 0.02, p90=k * 0.03, ideal_mean=k * 0.018)
        for k in range(1, workers + 1)
    ]
    return Report(
        name=name, mode=mode, required=4, backup_workers=2, iterations=100,
        iteration_seconds=Quantiles(0.1, 0.1, 0.1, 0.1), ideal_seconds=None,
        iteration_quantiles=[scale + i / 1000 for i in range(101)],
        ideal_quantiles=[scale + i / 2000 for i in range(101)] if mode != "Async" else [],
        examples=100, examples_per_second=1.0, wall_seconds=10.0, final={},
        workers=[WorkerReport(rank=r, accepted=90, dropped=r, refused=r % 2) for r in range(workers)],
        dropped_ratio=0.1, coverage=0.9, passes=None, staleness=None,
        arrivals=[] if mode == "Async" else arrivals,
        curve=[CurvePoint(i * 1.0, i * 10, 2.0 / (i + 1)) for i in range(10)],
        evaluations=[
            EvaluationPoint(wall_seconds=i, iteration=i, examples=i, metrics={"accuracy": 0.2 * i})
            for i in range(evaluations)
        ],
        batches={}, loss_difference=None, outcome="Succeeded", reason="Completed",
    )  # fmt: skip


def empty() -> Report:
    never = {"iterations": 0, "iteration_quantiles": [], "ideal_quantiles": [], "workers": [], "arrivals": []}
    return msgspec.structs.replace(report("never-began"), **never, curve=[], evaluations=[])


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_sheet_is_written_in_every_format(suffix, tmp_path):
    out = tmp_path / "new" / f"sheet.{suffix}"
    plot([report(), report("all", "Sync"), report("async", "Async")], out)
    assert out.stat().st_size > 5000


def test_two_runs_of_one_manifest_are_told_apart_by_their_files():
    named = named_apart([report(), report(), report("cnn")], ["fast", "slow", "c"])
    assert [r.name for r in named] == ["digits: fast", "digits: slow", "cnn"]


def test_a_run_keeps_its_colour_in_every_picture_and_is_named_in_the_legend():
    figure = draw([report("one"), report("two", "Sync")])
    assert len(figure.axes) == 6
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "one  (BackupSync, N=4, b=2)",
        "two  (Sync, N=4, b=2)",
    ]
    times, arrivals, outcomes, losses, evaluations, _ = figure.axes
    for axes in (times, arrivals, losses, evaluations):
        assert {COLOURS[0], COLOURS[1]} <= {line.get_color() for line in axes.lines}
    assert len(outcomes.patches) == 2 * 6 * 3


def test_the_ideal_is_dashed_beside_what_was_measured():
    times = draw([report()]).axes[0]
    assert [line.get_linestyle() for line in times.lines] == ["-", "--"]


def test_the_training_loss_is_always_drawn_and_an_evaluation_where_every_run_has_it():
    losses, evaluations = draw([report()]).axes[3:5]
    assert losses.get_ylabel() == "training loss"
    assert evaluations.get_ylabel() == "evaluated accuracy"
    none = draw([report(), empty()]).axes[4]
    assert [t.get_text() for t in none.texts] == ["no metric that every run evaluated"]


def test_the_main_figures_stand_in_a_table():
    (table,) = draw([report("one"), report("two")]).axes[5].tables
    texts = [cell.get_text().get_text() for cell in table.get_celld().values()]
    assert {"one", "two", "iteration p50", "dropped"} <= set(texts)


def test_asynchronous_runs_alone_have_no_kth_arrival_and_say_so():
    assert [t.get_text() for t in draw([report(mode="Async")]).axes[1].texts] == ["no synchronous run"]


def test_a_run_that_never_began_does_not_spoil_the_others(tmp_path):
    plot([empty()], tmp_path / "alone.png")
    plot([report(), empty()], tmp_path / "both.png")


def test_a_hundred_workers_still_fit():
    axes = draw([report(workers=100)]).axes
    assert all(len(a.get_xticks()) <= 25 for a in (axes[1], axes[2]))


@pytest.mark.parametrize(
    ("reports", "name", "message"),
    [
        ([], "a.png", "no reports"),
        ([report()] * 8, "a.png", "name at most 7"),
        ([report()], "a.jpg", "must end in one of .png, .svg, .pdf"),
        ([report()], "file/a.png", "cannot be written"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_words(reports, name, message, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PlotError, match=message):
        plot(reports, tmp_path / name)
