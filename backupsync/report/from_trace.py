"""From a trace to its report: pure, one pass, every figure defined where it is computed."""

from collections.abc import Callable, Iterable
from itertools import groupby

from backupsync.inject import Place, as_profile, ideal_step_seconds
from backupsync.report import figures
from backupsync.report.history import History, Places
from backupsync.report.model import (
    Arrival,
    BatchStatistics,
    CurvePoint,
    EvaluationPoint,
    Report,
    Staleness,
    WorkerReport,
)
from backupsync.trace import Gradient, Line

MAX_POINTS = 500
MAX_IDEAL_DRAWS = 200_000
"""Beyond this many (iteration, rank) draws, the ideal is computed on evenly spaced iterations."""
_UNSEEN = frozenset({"abandoned", "ended", "not-live"})
"""Reasons for which a mini-batch has no size, loss or compute time of its own."""


def from_trace(lines: Iterable[Line], name: str | None = None) -> Report:
    """Make the report of a trace's lines; `name` defaults to the job's. Raises TraceError, ProfileError."""
    history = History.read(lines)
    told = history.aggregation
    mode = str(told.get("mode", "BackupSync"))
    seconds = [i.seconds for i in history.iterations]
    places = Places(history)
    statistics = [] if mode == "Async" else _ideal(history, places)
    ideal = [asked[n - 1] for n, asked in statistics]
    examples = history.iterations[-1].examples if history.iterations else 0
    wall = history.wall_seconds
    outcomes = [g.outcome for g in history.gradients]
    tickets = _coverage(history.gradients)
    length = history.header.batches_per_epoch
    return Report(
        name=name or history.header.job,
        mode=mode,
        required=int(told.get("workers", 1)),
        backup_workers=int(told.get("backupWorkers", 0)),
        iterations=len(history.iterations),
        iteration_seconds=figures.summary(seconds),
        iteration_quantiles=figures.percentiles(seconds),
        ideal_seconds=figures.summary(ideal),
        ideal_quantiles=figures.percentiles(ideal),
        examples=examples,
        examples_per_second=examples / wall if wall > 0 else 0.0,
        wall_seconds=wall,
        final=_final(history),
        workers=_workers(history.gradients),
        dropped_ratio=outcomes.count("dropped") / len(outcomes) if outcomes else 0.0,
        coverage=tickets[0] / tickets[1] if tickets[1] else 0.0,
        passes=tickets[0] / length if length else None,
        staleness=_staleness(history.gradients) if mode == "Async" else None,
        arrivals=[] if mode == "Async" else _arrivals(history.gradients, [asked for _, asked in statistics]),
        curve=_curve(history),
        evaluations=_evaluations(history),
        batches={outcome: _batches(history.gradients, outcome) for outcome in ("accepted", "dropped")},
        loss_difference=_loss_difference(history.gradients),
        resumes=history.resumes,
        outcome=history.ended.outcome if history.ended else None,
        reason=history.ended.reason if history.ended else "",
        message=history.ended.message if history.ended else "",
    )


def _ideal(history: History, places: Callable[[int], list[Place]]) -> list[tuple[int, list[float]]]:
    """N and all injected step times, ascending, of (evenly spaced) iterations; nothing if not absolute."""
    profile = as_profile(history.header.injection)
    if profile is None or not history.iterations:
        return []
    widest = max(len(places(i.iteration)) for i in (history.iterations[0], history.iterations[-1]))
    stride = -(-len(history.iterations) * widest // MAX_IDEAL_DRAWS)
    statistics = []
    for line in history.iterations[::stride]:
        asked = ideal_step_seconds(profile, line.iteration, places(line.iteration))
        if asked is None:
            return []
        statistics.append((min(line.accepted, line.required, len(asked)), asked))
    return statistics


def _workers(gradients: list[Gradient]) -> list[WorkerReport]:
    ordered = sorted(gradients, key=lambda g: g.rank)
    return [_worker(rank, list(group)) for rank, group in groupby(ordered, key=lambda g: g.rank)]


def _worker(rank: int, gradients: list[Gradient]) -> WorkerReport:
    outcomes = [g.outcome for g in gradients]
    whole = [(g.to_the_end, g.compute_seconds) for g in gradients if g.reason not in _UNSEEN]
    known = [(to_the_end, seconds) for to_the_end, seconds in whole if seconds is not None]
    uncensored = [seconds for to_the_end, seconds in known if to_the_end]
    compute = figures.summary(uncensored if len(uncensored) >= 5 else [seconds for _, seconds in known])
    return WorkerReport(
        rank=rank,
        accepted=outcomes.count("accepted"),
        dropped=outcomes.count("dropped"),
        refused=outcomes.count("refused"),
        attempts=max(g.attempt for g in gradients),
        compute_seconds_p50=compute.p50 if compute else None,
    )


def _coverage(gradients: list[Gradient]) -> tuple[int, int]:
    """Distinct tickets applied, and tickets handed out: all up to the highest that anything was decided on,
    but for those still computed when the job ended.
    """
    applied = {g.ticket for g in gradients if g.outcome == "accepted"}
    decided = {g.ticket for g in gradients if g.reason != "ended"}
    unfinished = {g.ticket for g in gradients} - decided
    highest = max(decided, default=-1)
    return len(applied), highest + 1 - sum(ticket < highest for ticket in unfinished)


def _staleness(gradients: list[Gradient]) -> Staleness | None:
    stale = [g.applied_at - g.iteration for g in gradients if g.applied_at is not None]
    return Staleness(sum(stale) / len(stale), max(stale)) if stale else None


def _arrivals(gradients: list[Gradient], ideal: list[list[float]]) -> list[Arrival]:
    by_iteration: dict[int, list[float]] = {}
    for g in gradients:
        if g.arrival_seconds is not None and g.outcome != "refused" and g.reason not in _UNSEEN:
            by_iteration.setdefault(g.iteration, []).append(g.arrival_seconds)
    ordered = [sorted(arrived) for arrived in by_iteration.values()]
    arrivals = []
    for k in range(1, max(map(len, ordered), default=0) + 1):
        kth = sorted(arrived[k - 1] for arrived in ordered if len(arrived) >= k)
        p10, p50, p90 = (figures.quantile(kth, q) for q in (0.1, 0.5, 0.9))
        asked = figures.mean([times[k - 1] for times in ideal if len(times) >= k])
        average = sum(kth) / len(kth)
        arrivals.append(
            Arrival(k=k, count=len(kth), mean=average, p10=p10, p50=p50, p90=p90, ideal_mean=asked)
        )
    return arrivals


def _curve(history: History) -> list[CurvePoint]:
    points = []
    for group in figures.groups(history.iterations, MAX_POINTS):
        loss = figures.mean([i.loss for i in group if i.loss is not None])
        points.append(CurvePoint(group[-1].at - (history.began or 0.0), group[-1].examples, loss))
    return points


def _evaluations(history: History) -> list[EvaluationPoint]:
    began = history.began or 0.0
    made = {i.iteration + 1: (i.at, i.examples) for i in history.iterations}
    good = [e for e in history.evaluations if e.error is None]
    chosen = [group[-1] for group in figures.groups(good, MAX_POINTS)]
    return [
        EvaluationPoint(wall_seconds=at - began, iteration=e.iteration, examples=examples, metrics=e.metrics)
        for e in chosen
        for at, examples in [made.get(e.iteration, (began, 0))]
    ]


def _final(history: History) -> dict[str, float]:
    last = history.iterations[-1].loss if history.iterations else None
    evaluated = next((e.metrics for e in reversed(history.evaluations) if e.error is None), {})
    return ({} if last is None else {"loss": last}) | evaluated


def _batches(gradients: list[Gradient], outcome: str) -> BatchStatistics:
    chosen = [g for g in gradients if g.outcome == outcome]
    whole = [g for g in chosen if g.reason not in _UNSEEN]
    return BatchStatistics(
        count=len(chosen),
        examples_mean=figures.mean([g.examples for g in whole if g.examples]),
        loss_mean=figures.mean([g.loss for g in whole if g.loss is not None]),
    )


def _loss_difference(gradients: list[Gradient]) -> float | None:
    """Compared within iterations only: the loss falls from one to the next, whatever is dropped."""
    losses: dict[int, dict[str, list[float]]] = {}
    for g in gradients:
        if g.loss is not None and g.reason not in _UNSEEN:
            losses.setdefault(g.iteration, {}).setdefault(g.outcome, []).append(g.loss)
    differences = [
        sum(found["dropped"]) / len(found["dropped"]) - sum(found["accepted"]) / len(found["accepted"])
        for found in losses.values()
        if found.keys() >= {"accepted", "dropped"}
    ]
    return figures.mean(differences)
