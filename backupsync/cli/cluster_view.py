"""The picture of a job on a cluster, in a terminal: how far, how fast, which pod is where, and why."""

from datetime import UTC, datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from backupsync.cluster.types import Event, Job, Member
from backupsync.control import AggregatorStatus, Phase
from backupsync.local.progress.figures import clock, count, figures, number
from backupsync.local.progress.view import PHASE_STYLES, figure_line, progress_bar

_STYLES: Final = PHASE_STYLES | {"Running": "bold green"}
_PHASES: Final = {"Running": "green", "Pending": "yellow", "Exited": "red", "Absent": "dim"}
_MOST_ROWS: Final = 40
_COUNTERS: Final = ("crashes_total", "losses", "evictions", "restarts")
_HEADINGS: Final = {"crashes_total": "crashes"}


def render_job(job: Job, rows: int = _MOST_ROWS, now: datetime | None = None) -> RenderableType:
    """Return the whole picture; there is room for `rows` workers."""
    now = now or datetime.now(UTC)
    parts: list[RenderableType] = [_title(job, now)]
    if job.progress is not None:
        told = _as_told(job)
        parts += [progress_bar(told), figure_line(told)]
    elif not job.conditions:
        parts.append(Text("no operator has looked at it yet", style="dim"))
    parts.append(Text())
    if any(_is_worth_a_row(member) for member in job.ranks):
        parts += [_ranks(job, rows), Text()]
    if job.aggregator.epoch:
        parts.append(_aggregator(job))
    parts.append(_conditions(job))
    return Group(*parts)


def render_jobs(jobs: list[Job], *, namespaces: bool, now: datetime | None = None) -> RenderableType:
    """Return the jobs as a table, like the API server's."""
    now = now or datetime.now(UTC)
    headings = ("JOB", "STATE", "WORKERS", "ITERATION", "RATE", "AGE")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for heading in (*(["NAMESPACE"] if namespaces else []), *headings):
        table.add_column(
            heading, no_wrap=True, justify="right" if heading in ("ITERATION", "RATE") else "left"
        )
    for job in jobs:
        done = job.progress
        total = f"/{count(done.iterations)}" if done and done.iterations else ""
        rate = f"{done.iterations_per_second:.3g}/s" if done and job.state == "Running" else "–"
        cells: tuple[RenderableType, ...] = (
            *([job.namespace] if namespaces else []),
            job.name,
            Text(job.state, style=_STYLES.get(job.state, "bold cyan")),
            f"{job.workers.live}/{job.workers.desired}",
            f"{count(done.iteration)}{total}" if done else "–",
            rate,
            age(job.created, now),
        )
        table.add_row(*cells)
    return table


def job_line(job: Job) -> str:
    """Return the job in one line, where no terminal is."""
    done = job.progress
    if done is None:
        return f"{job.name}: {job.state}  live {job.workers.live} of {job.workers.desired}"
    total = f"/{count(done.iterations)}" if done.iterations else ""
    parts = [
        f"{job.name}: {job.state}",
        f"iteration {count(done.iteration)}{total}",
        f"{done.iterations_per_second:.3g} it/s" if job.state == "Running" else "",
        f"loss {number(done.loss)}" if done.loss is not None else "",
        figures(done.evaluation),
        f"live {job.workers.live} of {job.workers.desired}" if not job.finished else "",
        f"eta {clock(done.eta_seconds)}" if done.eta_seconds is not None and job.state == "Running" else "",
    ]
    return "  ".join(part for part in parts if part)


def event_line(event: Event) -> str:
    """Return an event as a line."""
    moment = event.time.astimezone().strftime("%H:%M:%S") if event.time else "--:--:--"
    mark = "warning: " if event.kind == "Warning" else ""
    about = "" if event.object.startswith("BackupSyncJob/") else f"  ({event.object.lower()})"
    many = f"  {event.count}×" if event.count > 1 else ""
    return f"{moment} {mark}{event.reason}: {event.message}{about}{many}"


def age(since: datetime | None, now: datetime) -> str:
    """Return a time span as kubectl has it: 12s, 5m, 3h, 4d."""
    if since is None:
        return "–"
    seconds = max(0, int((now - since).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _title(job: Job, now: datetime) -> Text:
    state = "Suspending" if job.suspend and job.state == "Running" else job.state
    text = Text.assemble((job.name, "bold"), "  ", (state, _STYLES.get(state, "bold cyan")))
    if job.deleting:
        text.append("  being deleted", "bold yellow")
    asked = job.aggregation
    if asked.mode == "Async":
        text.append(f"  Async  {asked.workers} workers", "dim")
    else:
        text.append(f"  {asked.mode}  N={asked.workers} b={asked.backup_workers}", "dim")
    if not job.finished:
        live = job.workers.live
        text.append(f"  live {live}/{job.workers.desired}", "dim" if live >= asked.workers else "red")
    took = job.completion_time - job.start_time if job.completion_time and job.start_time else None
    text.append(f"  took {clock(took.total_seconds())}" if took else f"  age {age(job.created, now)}", "dim")
    return text.append(f"  in {job.namespace}", "dim")


def _as_told(job: Job) -> AggregatorStatus:
    """Return the progress in the form that the local picture draws."""
    done = job.progress
    assert done is not None
    phase: Phase = "Training"
    if job.state != "Pending" and job.state != "Running":
        phase = job.state
    return AggregatorStatus(
        job=job.name,
        uid=job.uid,
        epoch=job.aggregator.epoch,
        phase=phase,
        iteration=done.iteration,
        iterations_total=done.iterations,
        examples=done.examples,
        rate=done.iterations_per_second,
        eta_seconds=done.eta_seconds,
        loss=done.loss,
        evaluation=done.evaluation,
        metrics=done.metrics,
    )


def _ranks(job: Job, rows: int) -> RenderableType:
    """Return the ranks; those that do not run come first where there is no room for all."""
    shown = list(job.ranks)
    if len(shown) > rows:
        shown = sorted(shown, key=lambda member: (member.phase == "Running", member.rank))[:rows]
    # A column that says the same everywhere, or nothing, is left out.
    attempts = any(member.attempt > 1 for member in shown)
    counters = [name for name in _COUNTERS if any(getattr(member, name) for member in shown)]
    nodes = any(member.node for member in shown)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    table.add_column("rank", justify="right", no_wrap=True)
    if attempts:
        table.add_column("attempt", justify="right", no_wrap=True)
    table.add_column("pod", no_wrap=True)
    if nodes:
        table.add_column("node", overflow="ellipsis", no_wrap=True)
    for name in counters:
        table.add_column(_HEADINGS.get(name, name), justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for member in shown:
        table.add_row(*_row(member, attempts, nodes, counters))
    left = len(job.ranks) - len(shown)
    return Group(table, Text(f"… and {left} more", style="dim")) if left else table


def _row(member: Member, attempts: bool, nodes: bool, counters: list[str]) -> list[RenderableType]:
    cells: list[RenderableType] = [str(member.rank)]
    if attempts:
        cells.append(Text(str(member.attempt), style="yellow" if member.attempt > 1 else "dim"))
    cells.append(Text(member.phase.lower() or "–", style=_PHASES.get(member.phase, "")))
    if nodes:
        cells.append(member.node or "–")
    for name in counters:
        value = getattr(member, name)
        cells.append(Text(count(value), style="yellow" if value else "dim"))
    cells.append(Text("slow" if member.slow else "", style="bold red"))
    return cells


def _aggregator(job: Job) -> Text:
    told = job.aggregator
    text = Text.assemble(("aggregator  ", "dim"), told.pod or f"epoch {told.epoch}")
    if not job.finished:
        text.append(*(("  ready", "green") if told.ready else ("  not ready", "yellow")))
    if told.node:
        text.append(f"  on {told.node}", "dim")
    for name, value in (("crashes", told.crashes), ("losses", told.losses)):
        if value:
            text.append(f"  {value} {name}", "yellow")
    if job.progress and job.progress.checkpoint_iteration is not None:
        text.append(f"  checkpoint at {count(job.progress.checkpoint_iteration)}", "dim")
    return text


def _is_worth_a_row(member: Member) -> bool:
    """Whether there is anything to tell of a rank: a pod, or a history."""
    counted = any(getattr(member, name) for name in _COUNTERS)
    return counted or member.slow or member.phase not in ("", "Absent")


def _conditions(job: Job) -> RenderableType:
    """Return the conditions that say something: that a job has not failed goes without saying."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for overflow in ("ellipsis", "ellipsis", "fold"):
        table.add_column(overflow=overflow, no_wrap=overflow == "ellipsis")
    for condition in job.conditions:
        usual = condition.status == "False" and condition.type in ("Suspended", "Succeeded", "Failed")
        if usual and not (condition.type == "Suspended" and job.suspend):
            continue
        bad = (condition.type, condition.status) in (("Failed", "True"), ("Accepted", "False"))
        head = Text(f"{condition.type}={condition.status}", style="bold red" if bad else "bold")
        message = Text(condition.message, style="" if bad else "dim")
        if (condition.type, condition.status) == ("Accepted", "True"):
            message.no_wrap, message.overflow = (
                True,
                "ellipsis",
            )  # it goes without saying; `explain` has it all
        table.add_row(head, condition.reason, message)
    return table
