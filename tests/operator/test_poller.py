"""The line to an aggregator: what wakes its job, what does not, and what is not believed."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from aiohttp import web

from backupsync.control import AggregatorStatus, Desired, DesiredMember, MemberStatus, Refusal
from backupsync_operator.poller import Pollers, Target, substance
from backupsync_operator.queue import Key

KEY = Key("default", "digits")
TOKEN = "a-token"


def member(**changes: Any) -> MemberStatus:
    given = {"rank": 0, "attempt": 1, "start": 0, "state": "Live", "phase": "compute", "commits": 3}
    return MemberStatus(**{**given, **changes})


STATUS = AggregatorStatus(
    job="digits", uid="uid-1", epoch=1, phase="Training", iteration=7, members=(member(),), applied=(1, 1)
)


def desired(generation: int) -> Desired:
    return Desired(term=1, generation=generation, members=(DesiredMember(0, 1),), workers=1, backup_workers=0)


@pytest.mark.parametrize(
    "change",
    [
        {"iteration": 8, "rate": 3.0, "loss": 0.5, "examples": 99, "eta_seconds": 2.0},
        {"members": (member(commits=4, accepted=4, phase="push", busy_p50_seconds=0.1),)},
        {"metrics": {"accuracy": 0.9}, "evaluation": {"accuracy": 0.9}},
        {"learning_rate": 0.01, "checkpoint_iteration": None},
    ],
)
def test_progress_is_nothing_to_decide_on(change: dict[str, Any]) -> None:
    assert substance(msgspec.structs.replace(STATUS, **change)) == substance(STATUS)


@pytest.mark.parametrize(
    "change",
    [
        {"phase": "Succeeded"},
        {"applied": (1, 2)},
        {"epoch": 2},
        {"members": (member(state="Lost"),)},
        {"members": (member(start=1),)},
        {"members": (member(attempt=2),)},
        {"members": (member(commits=0),)},
        {"members": ()},
        {"refusals": (Refusal("10.0.0.1", "BadProof", "the key is wrong"),)},
        {"evaluation_problem": "ValueError"},
        {"iteration": 0},
        {"required": 3},
    ],
)
def test_what_there_is_to_decide_on_tells_itself_apart(change: dict[str, Any]) -> None:
    assert substance(msgspec.structs.replace(STATUS, **change)) != substance(STATUS)


class Aggregator:
    """Answers what a test says."""

    def __init__(self) -> None:
        self.body: bytes = msgspec.json.encode(STATUS)
        self.code = 200
        self.asked = 0
        self.controls: list[tuple[str, Desired]] = []
        self.control_code = 200
        self.wakes = 0
        self.changed = asyncio.Condition()

    async def status(self, _: web.Request) -> web.Response:
        await self._note(lambda: setattr(self, "asked", self.asked + 1))
        return web.Response(body=self.body, status=self.code)

    async def control(self, request: web.Request) -> web.Response:
        told = msgspec.json.decode(await request.read(), type=Desired)
        token = request.headers["Authorization"].removeprefix("Bearer ")
        await self._note(lambda: self.controls.append((token, told)))
        return web.json_response({}, status=self.control_code)

    async def _note(self, what: Callable[[], None]) -> None:
        async with self.changed:
            what()
            self.changed.notify_all()

    async def until(self, predicate: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not predicate():  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def polls(self, count: int) -> None:
        """Wait for so many further polls, each of whose answers has been taken in but for the last."""
        wanted = self.asked + count
        async with self.changed:
            await self.changed.wait_for(lambda: self.asked >= wanted)


def run(body: Callable[[Aggregator, Pollers], Awaitable[None]]) -> None:
    async def whole() -> None:
        aggregator = Aggregator()
        application = web.Application()
        application.router.add_get("/status", aggregator.status)
        application.router.add_post("/control", aggregator.control)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()

        def wake(_: Key) -> None:
            aggregator.wakes += 1

        pollers = Pollers(wake, int(runner.addresses[0][1]), poll_seconds=0.01)
        pollers.point(KEY, Target("uid-1", 1, "127.0.0.1", TOKEN))
        try:
            async with asyncio.timeout(60):
                await body(aggregator, pollers)
        finally:
            await pollers.close()
            await runner.cleanup()

    asyncio.run(whole())


def test_the_first_answer_wakes_and_progress_after_it_does_not() -> None:
    async def body(aggregator: Aggregator, pollers: Pollers) -> None:
        await aggregator.until(lambda: pollers.latest(KEY) == STATUS)
        assert aggregator.wakes == 1
        for iteration in range(8, 12):
            wanted = msgspec.structs.replace(STATUS, iteration=iteration)
            aggregator.body = msgspec.json.encode(wanted)
            await aggregator.until(lambda wanted=wanted: pollers.latest(KEY) == wanted)
        assert aggregator.wakes == 1
        aggregator.body = msgspec.json.encode(msgspec.structs.replace(STATUS, phase="Succeeded"))
        await aggregator.until(lambda: aggregator.wakes == 2)

    run(body)


@pytest.mark.parametrize(
    "body_text",
    [
        msgspec.json.encode(msgspec.structs.replace(STATUS, uid="another job's")),
        msgspec.json.encode(msgspec.structs.replace(STATUS, epoch=2)),
        b"{}",
        b"[1, 2",
        b"\xff\xfe",
        b'{"job": 1e999}',
        b"[" * 100_000,
        b" " * (9 * 1024 * 1024),
    ],
)
def test_answers_that_are_none_are_not_believed(body_text: bytes) -> None:
    async def body(aggregator: Aggregator, pollers: Pollers) -> None:
        aggregator.body = body_text
        await aggregator.polls(5)
        assert (pollers.latest(KEY), aggregator.wakes) == (None, 0)
        aggregator.body = msgspec.json.encode(STATUS)
        await aggregator.until(lambda: pollers.latest(KEY) == STATUS)

    run(body)


def test_a_silent_aggregator_wakes_its_job_once_and_again_when_it_is_back() -> None:
    async def body(aggregator: Aggregator, pollers: Pollers) -> None:
        await aggregator.until(lambda: aggregator.wakes == 1)
        aggregator.code = 503
        await aggregator.until(lambda: pollers.latest(KEY) is None)
        await aggregator.polls(5)
        assert aggregator.wakes == 2
        aggregator.code = 200
        await aggregator.until(lambda: aggregator.wakes == 3)

    run(body)


def test_one_missed_answer_is_no_silence() -> None:
    async def body(aggregator: Aggregator, pollers: Pollers) -> None:
        await aggregator.until(lambda: aggregator.wakes == 1)
        aggregator.code = 503
        await aggregator.polls(1)
        aggregator.code = 200
        await aggregator.polls(3)
        assert aggregator.wakes == 1

    run(body)


def test_a_desired_state_is_told_until_it_is_applied_and_then_no_more() -> None:
    async def body(aggregator: Aggregator, pollers: Pollers) -> None:
        pollers.tell(KEY, desired(5))
        await aggregator.until(lambda: len(aggregator.controls) >= 3)  # it was taken, and is not applied yet
        assert set(aggregator.controls) == {(TOKEN, desired(5))}
        aggregator.body = msgspec.json.encode(msgspec.structs.replace(STATUS, applied=(1, 5)))
        await aggregator.polls(3)
        told = len(aggregator.controls)
        await aggregator.polls(5)
        assert len(aggregator.controls) == told

    run(body)


def test_a_refused_desired_state_gives_way_to_the_next_one() -> None:
    async def body(aggregator: Aggregator, pollers: Pollers) -> None:
        aggregator.control_code = 409
        pollers.tell(KEY, desired(5))
        await aggregator.until(lambda: (TOKEN, desired(5)) in aggregator.controls)
        aggregator.control_code = 200
        pollers.tell(KEY, desired(6))
        await aggregator.until(lambda: aggregator.controls[-1] == (TOKEN, desired(6)))

    run(body)


def test_another_epoch_is_another_aggregator() -> None:
    async def body(aggregator: Aggregator, pollers: Pollers) -> None:
        await aggregator.until(lambda: pollers.latest(KEY) is not None)
        pollers.point(KEY, Target("uid-1", 2, "127.0.0.1", TOKEN))
        assert pollers.latest(KEY) is None
        await aggregator.polls(3)
        assert pollers.latest(KEY) is None
        pollers.drop(KEY)
        assert pollers.latest(KEY) is None

    run(body)
