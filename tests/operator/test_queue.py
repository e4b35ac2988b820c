"""The work queue: deduplicated, never one key twice at the same time, failures paused ever longer."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from backupsync_operator.metrics import Metrics
from backupsync_operator.queue import Key, Queue
from backupsync_operator.workers import Workers

A, B = Key("default", "a"), Key("default", "b")


def run(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await body()

    asyncio.run(bounded())


def test_a_key_added_twice_is_taken_once() -> None:
    async def body() -> None:
        queue = Queue()
        for key in (A, B, A):
            queue.add(key)
        assert (queue.depth, await queue.take(), await queue.take()) == (2, A, B)
        assert queue.depth == 0

    run(body)


def test_a_key_added_while_at_work_comes_again_only_afterwards() -> None:
    async def body() -> None:
        queue = Queue()
        queue.add(A)
        assert await queue.take() == A
        queue.add(A)
        queue.add(A)
        assert queue.depth == 0
        queue.done(A)
        assert await queue.take() == A
        queue.done(A)
        assert queue.depth == 0

    run(body)


def test_a_later_look_is_brought_forward_but_never_put_off() -> None:
    async def body() -> None:
        queue = Queue()
        queue.add_later(A, 3600.0)
        queue.add_later(A, 0.01)
        queue.add_later(A, 3600.0)
        assert await queue.take() == A
        queue.done(A, again_after=3600.0)
        queue.add(A)
        assert await queue.take() == A
        queue.close()

    run(body)


def test_what_happened_meanwhile_wins_over_a_later_look() -> None:
    async def body() -> None:
        queue = Queue()
        queue.add(A)
        await queue.take()
        queue.add(A)
        queue.done(A, again_after=3600.0)
        assert await queue.take() == A

    run(body)


@pytest.mark.parametrize(("draw", "factor"), [(0.0, 0.75), (0.5, 1.0), (1.0, 1.25)])
def test_failures_pause_exponentially_with_jitter_up_to_a_limit(draw: float, factor: float) -> None:
    async def body() -> None:
        queue = Queue(first_pause=1.0, longest_pause=10.0, draw=lambda: draw)
        pauses = []
        for _ in range(6):
            queue.add(A)  # an event comes before the pause is over
            await queue.take()
            pauses.append(queue.failed(A))
        assert pauses == pytest.approx([factor * pause for pause in (1, 2, 4, 8, 10, 10)])
        queue.add(A)
        await queue.take()
        queue.done(A)
        queue.add(A)
        await queue.take()
        assert queue.failed(A) == pytest.approx(factor)
        queue.close()

    run(body)


def test_an_edit_during_a_failing_look_is_looked_at_soon_but_does_not_spin() -> None:
    async def body() -> None:
        queue = Queue(first_pause=0.01, longest_pause=3600.0, draw=lambda: 0.5)
        for _ in range(12):
            queue.add(A)
            await queue.take()
            queue.add(A)
            assert queue.failed(A) <= 0.01
            assert queue.depth == 0
        assert await queue.take() == A

    run(body)


def test_the_oldest_key_is_told_by_its_age() -> None:
    async def body() -> None:
        queue = Queue()
        assert queue.oldest_seconds == 0.0
        queue.add(A)
        await asyncio.sleep(0.02)
        queue.add(B)
        assert queue.oldest_seconds >= 0.02
        await queue.take()
        await asyncio.sleep(0.02)
        assert queue.oldest_seconds >= 0.02  # a look that takes long counts, too

    run(body)


def test_workers_never_look_at_one_key_twice_at_the_same_time() -> None:
    async def body() -> None:
        queue, metrics, looks = Queue(), Metrics(), 0
        busy: set[Key] = set()
        done = asyncio.Event()

        async def look(key: Key) -> float | None:
            nonlocal looks
            assert key not in busy
            busy.add(key)
            looks += 1
            queue.add(key)  # its own doing wakes it
            await asyncio.sleep(0)
            busy.discard(key)
            if looks > 200:
                done.set()
            return None

        workers = Workers(queue, look, metrics, 8)
        task = asyncio.create_task(workers.run())
        for number in range(4):
            queue.add(Key("default", f"job-{number}"))
        await done.wait()
        await workers.drain(5.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert metrics.read("backupsync_operator_overlapping_reconciles_total") == 0
        assert metrics.read("backupsync_operator_reconcile_seconds_count", {"outcome": "bug"}) == 0
        assert metrics.read("backupsync_operator_reconcile_seconds_count", {"outcome": "ok"}) >= 200

    run(body)


def test_a_bug_in_one_look_costs_a_pause_and_no_worker(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        queue, metrics, seen = Queue(first_pause=0.01), Metrics(), asyncio.Event()

        async def look(key: Key) -> float | None:
            if (
                key == A
                and metrics.read("backupsync_operator_reconcile_seconds_count", {"outcome": "bug"}) < 3
            ):
                raise ZeroDivisionError
            if key == A:
                seen.set()
            return None

        workers = Workers(queue, look, metrics, 1)
        task = asyncio.create_task(workers.run())
        queue.add(A)
        await seen.wait()
        assert workers.problem == ""
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(body)
    assert "ZeroDivisionError" in caplog.text
