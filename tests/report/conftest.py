"""A run without processes: the trace that perfect workers and a perfect aggregator would write."""

import heapq
import math
from collections.abc import Callable
from typing import Any

import pytest

from backupsync.inject import Injector, Profile
from backupsync.trace import Ended, Evaluation, Gradient, Header, Iteration, Line

Simulate = Callable[..., list[Line]]
APPLY = 0.004


def loss_after(examples: int) -> float:
    return 0.1 + 2.2 * math.exp(-examples / 8000)


def header(mode: str = "BackupSync", workers: int = 4, backups: int = 2, **more: Any) -> Header:
    aggregation = {"mode": mode, "workers": workers, "backupWorkers": backups}
    manifest = {"metadata": {"name": "digits"}, "spec": {"aggregation": aggregation}}
    return Header(job="digits", uid="u", manifest=manifest, started=0.0, initial_digest="", threads=1, **more)


def synchronous(profile: Profile, workers: int, backups: int, iterations: int) -> list[Line]:
    """Late workers finish what they began and then take the newest iteration."""
    total = workers + backups
    lines: list[Line] = [
        header("BackupSync" if backups else "Sync", workers, backups, injection=profile.dump())
    ]
    injectors = [Injector(profile, rank, 1, "x") for rank in range(total)]
    free, now, ticket, examples = [0.0] * total, 0.0, 0, 0
    for iteration in range(iterations):
        arrivals = []
        for rank in range(total):
            step = injectors[rank].step(iteration, ticket).seconds or 0.0
            arrivals.append((max(free[rank], now) + step, step, rank, ticket))
            ticket += 1
        arrivals.sort()
        end = arrivals[workers - 1][0] + APPLY
        for place, (at, step, rank, number) in enumerate(arrivals):
            if place >= workers and free[rank] > end:
                continue  # still busy with an older one: never began this iteration
            free[rank] = at
            lines.append(
                Gradient(
                    at=at, iteration=iteration, rank=rank, attempt=1, ticket=number, examples=32,
                    outcome="accepted" if place < workers else "dropped",
                    place=place if place < workers else None,
                    reason=None if place < workers else "late", loss=loss_after(examples),
                    arrival_seconds=at - now, compute_seconds=step, injected_seconds=step,
                    to_the_end=number % 4 == 0,
                )
            )  # fmt: skip
        examples += 32 * workers
        lines.append(
            Iteration(
                at=end, iteration=iteration, required=workers, accepted=workers, live=total,
                seconds=end - now, apply_seconds=APPLY, examples=examples, loss=loss_after(examples),
            )
        )  # fmt: skip
        now = end
        if iteration % 15 == 14:
            lines.append(evaluation(now, iteration + 1, examples))
    return [*lines, ended(now, iterations)]


def asynchronous(profile: Profile, workers: int, iterations: int) -> list[Line]:
    lines: list[Line] = [header("Async", workers, 0, injection=profile.dump())]
    injectors = [Injector(profile, rank, 1, "x") for rank in range(workers)]
    queue = [(injectors[rank].step(0, rank).seconds or 0.0, rank, 0, rank) for rank in range(workers)]
    heapq.heapify(queue)
    now = 0.0
    for update in range(iterations):
        at, rank, read, ticket = heapq.heappop(queue)
        at = max(at, now) + APPLY
        examples = 32 * (update + 1)
        lines.append(
            Gradient(
                at=at, iteration=read, rank=rank, attempt=1, ticket=ticket, outcome="accepted", place=0,
                applied_at=update, examples=32, loss=loss_after(examples), arrival_seconds=at - now,
                compute_seconds=0.1, to_the_end=True,
            )
        )  # fmt: skip
        lines.append(
            Iteration(
                at=at, iteration=update, required=1, accepted=1, live=workers, seconds=at - now,
                examples=examples, loss=loss_after(examples),
            )
        )  # fmt: skip
        now = at
        again = at + (injectors[rank].step(update + 1, workers + update).seconds or 0.0)
        heapq.heappush(queue, (again, rank, update + 1, workers + update))
        if update % 60 == 59:
            lines.append(evaluation(now, update + 1, examples))
    return [*lines, ended(now, iterations)]


def evaluation(at: float, iteration: int, examples: int) -> Evaluation:
    accuracy = 0.98 - 0.88 * math.exp(-examples / 4000)
    return Evaluation(at=at, iteration=iteration, rank=0, metrics={"accuracy": accuracy}, seconds=0.1)


def ended(at: float, iterations: int) -> Ended:
    return Ended(at=at, iteration=iterations, outcome="Succeeded", reason="Completed", wall_seconds=at)


@pytest.fixture
def simulate() -> Simulate:
    """(profile, workers, backups, iterations, mode) -> lines of the trace."""

    def run(profile: Profile, workers: int, backups: int, iterations: int, mode: str = "Sync") -> list[Line]:
        if mode == "Async":
            return asynchronous(profile, workers, iterations)
        return synchronous(profile, workers, backups, iterations)

    return run
