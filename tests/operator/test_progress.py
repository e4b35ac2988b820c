"""The budget of progress writes."""

import asyncio
import itertools

import pytest

from backupsync_operator.api import Transient
from backupsync_operator.progress import Budget, Progress
from backupsync_operator.queue import Key


def test_the_budget_saves_up_one_second_and_no_more() -> None:
    budget = Budget(rate=5.0, now=100.0)
    assert sum(budget.take(100.0) for _ in range(20)) == 5
    assert not budget.take(100.1)
    assert budget.take(100.2)
    assert sum(budget.take(1000.0) for _ in range(20)) == 5


def test_a_budget_below_one_write_a_second_still_grants_whole_ones() -> None:
    budget = Budget(rate=0.1, now=0.0)
    assert budget.take(0.0)
    assert not budget.take(9.0)
    assert budget.take(10.0)


@pytest.mark.parametrize(("rate", "jobs"), [(5.0, 3), (5.0, 100), (0.5, 4)])
def test_no_window_of_time_sees_more_writes_than_the_budget(rate: float, jobs: int) -> None:
    budget, writes, now = Budget(rate, 0.0), [], 0.0
    while now < 60.0:
        writes += [now for _ in range(jobs) if budget.take(now)]
        now += 0.05
    for start in range(50):
        count = sum(start <= at < start + 10 for at in writes)
        assert count <= 10 * rate + max(1.0, rate)
    assert len(writes) >= 59 * min(rate, jobs / 0.05) * 0.95


def run_progress(rate: float, interval: float, jobs: int, enough: int) -> list[tuple[float, Key]]:
    written: list[tuple[float, Key]] = []

    async def body() -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        async def write(key: Key) -> bool:
            written.append((loop.time(), key))
            if len(written) >= enough:
                done.set()
            if key.name == "0":
                raise Transient(500, "InternalError", "etcd has no leader")
            return True

        progress = Progress(write, rate=rate, interval=interval, tick_seconds=0.01)
        for number in range(jobs):
            progress.follow(Key("default", str(number)), loop.time())
        task = asyncio.create_task(progress.run())
        async with asyncio.timeout(60):
            await done.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(body())
    return written


def test_a_job_is_not_written_again_before_its_interval_and_a_failure_stops_nobody() -> None:
    written = run_progress(rate=1000.0, interval=0.2, jobs=3, enough=12)
    by_job: dict[Key, list[float]] = {}
    for at, key in written:
        by_job.setdefault(key, []).append(at)
    assert len(by_job) == 3
    for times in by_job.values():
        assert all(later - earlier >= 0.19 for earlier, later in itertools.pairwise(times))


def test_when_there_are_more_jobs_than_the_budget_everyone_gets_a_turn() -> None:
    written = run_progress(rate=50.0, interval=0.01, jobs=20, enough=60)
    counts = [sum(key.name == str(number) for _, key in written) for number in range(20)]
    assert max(counts) - min(counts) <= 1
