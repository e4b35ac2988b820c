"""The picture of a job in a terminal: how far, how fast, who is accepted, dropped, slow."""

from typing import Literal

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from backupsync.control import AggregatorStatus, MemberStatus
from backupsync.lifecycle.types import JobStatus
from backupsync.local.observer import Snapshot
from backupsync.local.progress.figures import clock, count, number, seconds, share_done, slowness
from backupsync.spec import BackupSyncJob

PHASE_STYLES = {
    "Training": "bold green",
    "Evaluating": "bold green",
    "Succeeded": "bold green",
    "Failed": "bold red",
    "Suspended": "bold yellow",
    "Stopping": "bold yellow",
}
_STATES = {"Live": "green", "Candidate": "cyan", "Lost": "red", "Fenced": "dim"}
_COLUMNS: dict[str, Literal["left", "right"]] = {
    "rank": "right",
    "attempt": "right",
    "state": "left",
    "doing": "left",
    "accepted": "right",
    "  ": "left",
    "dropped": "right",
    "busy p50": "right",
    " ": "left",
}
_WIDE = 100
_WIDE_BAR = 16
_NARROW_BAR = 8


def render(snapshot: Snapshot, rows: int = 40, width: int = 80) -> RenderableType:
    """Return the whole picture; there is room for `rows` workers and `width` columns."""
    status = snapshot.aggregator
    parts: list[RenderableType] = [_title(snapshot)]
    if status is None:
        parts.append(Text(_waiting(snapshot), style="dim"))
        return Group(*parts)
    parts += [progress_bar(status), figure_line(status), Text()]
    if status.members:
        parts.append(_workers(status, rows, width))
    return Group(*parts)


def render_status(job: BackupSyncJob, status: JobStatus, pid: int | None) -> RenderableType:
    """Return the picture of a job as `backupsync status` shows it."""
    snapshot = Snapshot(job=job, status=status, replicas=(), aggregator=status.progress)
    where = Text(f"engine: process {pid}" if pid else "engine: none runs", style="dim")
    conditions = [
        Text.assemble((f"{c.type}={c.status}", "bold"), f"  {c.reason}  ", (c.message, "dim"))
        for c in status.conditions
    ]
    return Group(render(snapshot), Text(), *conditions, where)


def phase_of(snapshot: Snapshot) -> str:
    """Return the word that says best what the job does."""
    if snapshot.stopping:
        return "Stopping"
    if snapshot.aggregator is not None and snapshot.status.phase == "Running":
        return snapshot.aggregator.phase
    return snapshot.status.phase


def _title(snapshot: Snapshot) -> Text:
    phase = phase_of(snapshot)
    aggregation = snapshot.job.spec.aggregation
    style = PHASE_STYLES.get(phase, "bold cyan")
    title = Text.assemble((snapshot.job.metadata.name, "bold"), "  ", (phase, style))
    n, b = aggregation.workers, aggregation.backup_workers
    live = None
    if (status := snapshot.aggregator) is not None:
        n, b = status.required or n, status.backups if status.required else b
        live = sum(member.state == "Live" for member in status.members)
        if status.epoch > 1:
            title.append(f"  epoch {status.epoch}", "dim")
    if aggregation.mode == "Async":
        # Every gradient makes an update of its own: N in force is 1, and says nothing of the size.
        n = aggregation.workers
        title.append(f"  Async  {n} workers", "dim")
    else:
        title.append(f"  {aggregation.mode}  N={n} b={b}", "dim")
    if live is not None and snapshot.status.phase in ("Pending", "Running"):
        title.append(f"  live {live}", "red" if live < n else "dim")
    return title


def _waiting(snapshot: Snapshot) -> str:
    running = sum(replica.phase == "Running" for replica in snapshot.replicas)
    return f"{running} processes are starting …" if running else "starting …"


def progress_bar(status: AggregatorStatus) -> RenderableType:
    """Return how far and how fast, in one line."""
    share = share_done(status)
    bar = Table.grid(padding=(0, 1), expand=True)
    bar.add_column(ratio=1)
    bar.add_column(justify="right", no_wrap=True)
    total = f"/{count(status.iterations_total)}" if status.iterations_total else ""
    words = Text.assemble("iteration ", (f"{count(status.iteration)}{total}", "bold"))
    if status.phase not in ("Suspended", "Succeeded", "Failed"):
        words.append(f"  {status.rate:.3g}/s")
        if status.eta_seconds is not None:
            words.append(f"  {clock(status.eta_seconds)} left", "dim")
    line = ProgressBar(total=None if share is None else 1.0, completed=share or 0.0, pulse=share is None)
    bar.add_row(line, words)
    return bar


def figure_line(status: AggregatorStatus) -> Text:
    """Return loss, learning rate, metrics and evaluation, in one line."""
    text = Text(overflow="fold")
    known = {"loss": status.loss, "lr": status.learning_rate}
    pairs = {name: number(value) for name, value in known.items() if value is not None}
    pairs |= {"examples": count(status.examples)}
    pairs |= {key: number(figure) for key, figure in sorted(status.metrics.items())}
    for name, said in pairs.items():
        text.append(f"{name} ", "dim").append(f"{said}   ")
    for name, value in sorted(status.evaluation.items()):
        text.append(f"{name} ", "dim").append(f"{number(value)}   ", "bold green")
    return text


def _workers(status: AggregatorStatus, rows: int, width: int) -> RenderableType:
    members = sorted(status.members, key=lambda member: (member.rank, member.attempt))
    shown = [m for m in members if m.state != "Fenced"] or members
    # A column that says 1 everywhere says nothing.
    attempts = any(member.attempt > 1 for member in shown)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for heading, justify in _COLUMNS.items():
        if heading != "attempt" or attempts:
            table.add_column(heading.strip(), justify=justify, no_wrap=True)
    slow = slowness(status.members)
    bar = _WIDE_BAR if width >= _WIDE else _NARROW_BAR
    for member in shown[:rows]:
        cells = _row(member, slow.get(member.rank), bar)
        table.add_row(*(cell for heading, cell in cells.items() if heading != "attempt" or attempts))
    if len(shown) <= rows:
        return table
    return Group(table, Text(f"… and {len(shown) - rows} more", style="dim"))


def _row(member: MemberStatus, slow: float | None, bar: int) -> dict[str, RenderableType]:
    cells: tuple[RenderableType, ...] = (
        str(member.rank),
        Text(str(member.attempt), style="dim" if member.attempt == 1 else "yellow"),
        Text(member.state.lower(), style=_STATES[member.state]),
        member.phase,
        count(member.accepted),
        _share(member, bar),
        Text(count(member.dropped), style="yellow" if member.dropped else "dim"),
        seconds(member.busy_p50_seconds),
        Text(f"slow {slow:.1f}×" if slow else "", style="bold red"),
    )
    return dict(zip(_COLUMNS, cells, strict=True))


def _share(member: MemberStatus, bar: int) -> Text:
    whole = member.accepted + member.dropped
    if not whole:
        return Text("╶" * bar, style="bright_black")
    taken = round(bar * member.accepted / whole)
    return Text.assemble(("━" * taken, "green"), ("━" * (bar - taken), "yellow"))
