"""The pictures of a sheet: each draws every run into one set of axes."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from backupsync.report import Report

FIGURES: Final = (
    "iteration p50", "iteration p99", "over ideal p50", "wall time", "examples / s", "dropped", "loss",
)  # fmt: skip


class Run(NamedTuple):
    """A report and its colour on the sheet."""

    report: Report
    colour: str

    @property
    def label(self) -> str:
        """Name, mode, N and b."""
        r = self.report
        size = (
            f"N={r.required}, b={r.backup_workers}"
            if r.mode != "Async"
            else f"{r.required} workers, 1 gradient per update"
        )
        return f"{r.name}  ({r.mode}, {size})"


def swatch(run: Run) -> Patch:
    """The run's entry in the sheet's legend."""
    return Patch(color=run.colour, label=run.label)


def iteration_times(axes: Axes, runs: Sequence[Run]) -> None:
    """ECDF of the iteration time, with the ideal order statistic dashed."""
    shares = [i / 100 for i in range(101)]
    longest = 0.0
    for run in runs:
        report = run.report
        if not report.iteration_quantiles:
            continue
        axes.plot(_ms(report.iteration_quantiles), shares, color=run.colour, linewidth=2)
        longest = max(longest, report.iteration_quantiles[99])
        if report.ideal_quantiles:
            axes.plot(_ms(report.ideal_quantiles), shares, color=run.colour, linewidth=1.3, linestyle="--")
    axes.set(title="Iteration time", xlabel="milliseconds", ylabel="share of iterations")
    axes.set_ylim(0, 1.02)
    if longest:
        axes.set_xlim(0, longest * 1100)
    styles = [Line2D([], [], color="0.3", linewidth=2, label="measured")]
    if any(run.report.ideal_quantiles for run in runs):
        label = "ideal: N-th of the injected times"
        styles.append(Line2D([], [], color="0.3", linewidth=1.3, linestyle="--", label=label))
    # Below the axes: a distribution may lie anywhere inside them.
    axes.legend(handles=styles, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, frameon=False)


def arrivals(axes: Axes, runs: Sequence[Run]) -> None:
    """Mean arrival of the k-th gradient, with the span from p10 to p90; hollow beyond N."""
    shown = [run for run in runs if run.report.arrivals]
    for index, run in enumerate(shown):
        shift = (index - (len(shown) - 1) / 2) * 0.14
        for arrival in run.report.arrivals:
            late = arrival.k > run.report.required
            x, mean = arrival.k + shift, arrival.mean * 1000
            axes.vlines(x, arrival.p10 * 1000, arrival.p90 * 1000, color=run.colour, alpha=0.35, linewidth=4)
            face = "white" if late else run.colour
            axes.plot(x, mean, "o", color=run.colour, markerfacecolor=face, markersize=7)
            if arrival.ideal_mean is not None:
                axes.plot(x, arrival.ideal_mean * 1000, "_", color="0.15", markersize=13, markeredgewidth=1.5)
    axes.set(
        title="Arrival of the k-th gradient since the iteration began", xlabel="k", ylabel="milliseconds"
    )
    if not shown:
        _nothing(axes, "no synchronous run")
        return
    most = max(len(run.report.arrivals) for run in shown)
    axes.set_xticks(range(1, most + 1) if most <= 24 else [])
    axes.set_ylim(bottom=0)
    marks = [
        Line2D([], [], color="0.3", marker="o", linestyle="", label="mean, bar from p10 to p90"),
        Line2D(
            [],
            [],
            color="0.3",
            marker="o",
            linestyle="",
            markerfacecolor="white",
            label="beyond N, unless abandoned",
        ),
        Line2D([], [], color="0.15", marker="_", linestyle="", markersize=11, label="ideal"),
    ]
    axes.legend(handles=marks, loc="upper left", frameon=False)


def losses(axes: Axes, runs: Sequence[Run]) -> None:
    """Training loss of every update against wall time, faint, and its running mean."""
    for run in runs:
        points = [(p.wall_seconds, p.loss) for p in run.report.curve if p.loss is not None]
        if not points:
            continue
        seconds, values = zip(*points, strict=True)
        axes.plot(seconds, values, color=run.colour, alpha=0.25, linewidth=0.8)
        axes.plot(seconds, _running_mean(values), color=run.colour, linewidth=1.8)
    axes.set(title="Training loss against wall time", xlabel="seconds", ylabel="training loss")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    styles = [
        Line2D([], [], color="0.3", alpha=0.35, linewidth=0.8, label="every update"),
        Line2D([], [], color="0.3", linewidth=1.8, label="running mean"),
    ]
    axes.legend(handles=styles, loc="upper right", frameon=False)


def evaluations(axes: Axes, runs: Sequence[Run]) -> None:
    """The first evaluated metric that every run has (accuracy before others), against wall time."""
    names = [{name for e in run.report.evaluations for name in e.metrics} for run in runs]
    shared = set.intersection(*names)
    metric = "accuracy" if "accuracy" in shared else min(shared, default=None)
    axes.set(title="Evaluation against wall time", xlabel="seconds")
    if metric is None:
        _nothing(axes, "no metric that every run evaluated")
        return
    for run in runs:
        points = _evaluated(run.report, metric)
        axes.plot(*zip(*points, strict=True), color=run.colour, linewidth=1.6, marker="o", markersize=3.5)
    axes.set(ylabel=f"evaluated {metric}")
    axes.set_xlim(left=0)


def outcomes(axes: Axes, runs: Sequence[Run]) -> None:
    """Accepted, dropped and refused gradients of every rank, stacked."""
    width = 0.8 / len(runs)
    highest = 1
    for index, run in enumerate(runs):
        shift = (index - (len(runs) - 1) / 2) * width
        for worker in run.report.workers:
            bottom = 0
            parts = ((worker.accepted, 1.0, ""), (worker.dropped, 0.35, "//"), (worker.refused, 0.12, "xx"))
            for count, alpha, hatch in parts:
                axes.bar(
                    worker.rank + shift, count, width * 0.92, bottom=bottom,
                    color=run.colour, alpha=alpha, hatch=hatch, edgecolor="white", linewidth=0.5,
                )  # fmt: skip
                bottom += count
            highest = max(highest, bottom)
    axes.set_ylim(0, highest * 1.14)  # room for the legend
    ranks = sorted({worker.rank for run in runs for worker in run.report.workers})
    axes.set_xticks(ranks if len(ranks) <= 24 else ranks[:: -(-len(ranks) // 24)])
    axes.set(title="Gradients per worker", xlabel="rank", ylabel="gradients")
    kinds = [
        Patch(color="0.3", label="accepted"),
        Patch(facecolor="0.3", alpha=0.35, hatch="//", edgecolor="white", label="dropped"),
    ]
    if any(worker.refused for run in runs for worker in run.report.workers):
        kinds.append(Patch(facecolor="0.3", alpha=0.12, hatch="xx", edgecolor="white", label="refused"))
    axes.legend(handles=kinds, loc="upper right", frameon=False, ncols=len(kinds))


def figures(axes: Axes, runs: Sequence[Run]) -> None:
    """The runs' main figures as a table."""
    axes.set_axis_off()
    axes.set_title("In figures")
    cells = [_figures_of(run.report) for run in runs]
    table = axes.table(
        cellText=[list(row) for row in zip(*cells, strict=True)],
        rowLabels=FIGURES,
        colLabels=[run.report.name for run in runs],
        loc="center",
        cellLoc="right",
        edges="horizontal",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    table.scale(1, 1.7)
    for (row, column), cell in table.get_celld().items():
        cell.set_edgecolor("0.8")
        if row == 0:
            cell.set_text_props(color=runs[column].colour, weight="bold")


def _figures_of(r: Report) -> tuple[str, ...]:
    times, ideal = r.iteration_seconds, r.ideal_seconds
    return (
        f"{times.p50 * 1000:.3g} ms" if times else "-",
        f"{times.p99 * 1000:.3g} ms" if times else "-",
        f"{times.p50 / ideal.p50:.2f} ×" if times and ideal else "-",
        f"{r.wall_seconds:.1f} s",
        f"{r.examples_per_second:,.0f}",
        f"{r.dropped_ratio:.0%}",
        f"{r.final['loss']:.3g}" if "loss" in r.final else "-",
    )


Panel = Callable[[Axes, Sequence[Run]], None]
ALL: Final[tuple[Panel, ...]] = (iteration_times, arrivals, outcomes, losses, evaluations, figures)


def _running_mean(values: Sequence[float]) -> list[float]:
    """Mean over the last fortieth of the points (at least 3)."""
    span = max(3, len(values) // 40)
    return [sum(w := values[max(0, i - span + 1) : i + 1]) / len(w) for i in range(len(values))]


def _ms(seconds: Sequence[float]) -> list[float]:
    return [s * 1000 for s in seconds]


def _evaluated(report: Report, metric: str) -> list[tuple[float, float]]:
    return [(e.wall_seconds, e.metrics[metric]) for e in report.evaluations if metric in e.metrics]


def _nothing(axes: Axes, why: str) -> None:
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", color="0.5")
