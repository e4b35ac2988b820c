"""The end of a run in words: what came out, how fast, whose gradients counted, where everything lies."""

from pathlib import Path

from msgspec import Struct
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from backupsync.lifecycle.types import JobStatus
from backupsync.local.progress.figures import clock, count, number, seconds
from backupsync.local.progress.view import PHASE_STYLES
from backupsync.report import Report
from backupsync.spec import BackupSyncJob


class Ending(Struct, frozen=True, kw_only=True):
    """What is known when a run is over."""

    job: BackupSyncJob
    status: JobStatus
    report: Report | None
    checkpoints: str
    trace: str
    report_path: Path
    logs: str
    go_on: str


def render_summary(ending: Ending) -> RenderableType:
    """Return the summary."""
    parts: list[RenderableType] = [_headline(ending)]
    if ending.report is not None and ending.report.iterations:
        parts += [_figures(ending.report), _workers(ending.report)]
    parts.append(_places(ending))
    return Group(*parts)


def _headline(ending: Ending) -> Text:
    status = ending.status
    phase = status.phase if status.phase in ("Succeeded", "Failed") else "Stopped"
    style = PHASE_STYLES.get(phase, "bold yellow")
    text = Text.assemble((ending.job.metadata.name, "bold"), "  ", (phase, style))
    # The trace knows the last iterations even where the aggregator could not answer any more.
    done = ending.report.iterations if ending.report else status.progress and status.progress.iteration
    text.append(f"  after {count(done or 0)} iterations")
    if status.evaluation_problem:
        said = status.evaluation_problem.strip().splitlines()[-1]
        text.append(f"\nthe newest evaluation has no result: {said}", "yellow")
    if phase == "Stopped":
        return text.append(f"; {ending.go_on}")
    for condition in status.conditions:
        if condition.type == phase and condition.status == "True":
            text.append(f"\n{condition.reason}: {condition.message}" if phase == "Failed" else "")
    return text


def _figures(report: Report) -> Text:
    text = Text()
    for name, value in sorted(report.final.items()):
        text.append(f"{name} ", "dim").append(f"{number(value)}   ", "bold")
    if (times := report.iteration_seconds) is not None:
        text.append("\niteration ", "dim")
        text.append(f"p50 {seconds(times.p50)}  p90 {seconds(times.p90)}  p99 {seconds(times.p99)}")
        if (ideal := report.ideal_seconds) is not None:
            text.append("   ideal p50 ", "dim").append(seconds(ideal.p50))
    text.append("   wall ", "dim").append(clock(report.wall_seconds))
    text.append("   examples/s ", "dim").append(f"{report.examples_per_second:,.0f}")
    return text


def _workers(report: Report) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for heading in ("rank", "accepted", "dropped", "compute p50"):
        table.add_column(heading, justify="right", no_wrap=True)
    for worker in report.workers:
        accepted, dropped = count(worker.accepted), count(worker.dropped)
        table.add_row(str(worker.rank), accepted, dropped, seconds(worker.compute_seconds_p50))
    return table


def _places(ending: Ending) -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    checkpoints = Path(ending.checkpoints)
    for name in ("model.safetensors", "model-ema.safetensors"):
        if (checkpoints / name).exists():
            table.add_row("model", str(checkpoints / name))
    if ending.status.phase != "Succeeded":
        table.add_row("checkpoints", ending.checkpoints)
    if ending.report is not None:
        table.add_row("report", str(ending.report_path))
        table.add_row("trace", ending.trace)
    table.add_row("logs", ending.logs)
    return table
