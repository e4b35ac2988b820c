"""One sheet: iteration time, k-th arrival, accepted and dropped, loss, evaluation, and the main figures.

Colours are Okabe and Ito's, which stay apart under every common colour blindness; a run keeps its colour in
all of them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from backupsync.errors import BackupSyncError
from backupsync.plotting import panels
from backupsync.report import Report

FORMATS: Final = ("png", "svg", "pdf")
COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


class PlotError(BackupSyncError):
    """A picture that cannot be drawn."""


def plot(reports: Sequence[Report], out: Path) -> None:
    """Draw the reports side by side into `out` (png, svg or pdf). Raises PlotError."""
    if not reports:
        raise PlotError("no reports: name at least one report to plot")
    if len(reports) > len(COLOURS):
        raise PlotError(f"{len(reports)} reports are too many for one sheet: name at most {len(COLOURS)}")
    if out.suffix.lstrip(".") not in FORMATS:
        raise PlotError(f"{out}: must end in one of {', '.join('.' + f for f in FORMATS)}")
    figure = draw(reports)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=110)
    except OSError as error:
        raise PlotError(f"{out}: cannot be written: {error}") from error


def draw(reports: Sequence[Report]) -> Figure:
    """Return the sheet as a figure of its own, apart from pyplot's global state."""
    figure = Figure(figsize=(17, 9), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, 3)
    runs = [panels.Run(report, COLOURS[index]) for index, report in enumerate(reports)]
    for axes, panel in zip(grid.flat, panels.ALL, strict=True):
        _dress(axes)
        panel(axes, runs)
    handles = [panels.swatch(run) for run in runs]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(runs), 4), frameon=False)
    return figure


def _dress(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
