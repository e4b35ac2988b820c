"""One active operator: by a Lease taken when free, handed over under a higher term, fatal when lost."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from fake_api import FakeApi, Refusal
from kubernetes.aio.client import Configuration

from backupsync_operator.api import Api
from backupsync_operator.lease import DEADLINE_FRACTION, RETRY_FRACTION, Lease, LeaseLost


def run(body: Callable[[FakeApi, Callable[..., Lease]], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(60), FakeApi() as server:
            apis: list[Api] = []

            def lease(identity: str, seconds: float = 120.0) -> Lease:
                apis.append(Api(Configuration(host=server.url)))
                return Lease(apis[-1], "operators", "backupsync-operator", identity, seconds, 0.05)

            try:
                await body(server, lease)
            finally:
                for api in apis:
                    await api.close()

    asyncio.run(whole())


def spec(server: FakeApi) -> dict[str, Any]:
    held = server.get("leases", "backupsync-operator", "operators")
    assert held is not None
    return dict(held["spec"])


def test_the_first_makes_the_lease_and_its_term_is_no_lower_than_the_time() -> None:
    async def body(server: FakeApi, lease: Callable[..., Lease]) -> None:
        began = int(time.time())
        assert await lease("a").acquire() >= began
        assert spec(server)["holderIdentity"] == "a"

    run(body)


def test_a_standby_takes_over_at_once_when_the_holder_releases_and_under_a_higher_term() -> None:
    async def body(server: FakeApi, lease: Callable[..., Lease]) -> None:
        first, second = lease("a"), lease("b")
        term = await first.acquire()
        waiting = asyncio.create_task(second.acquire())
        renewing = asyncio.create_task(first.hold())
        for _ in range(5):
            before = first.renewed_at
            while first.renewed_at == before:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert not waiting.done()
        assert not renewing.done()
        renewing.cancel()
        await first.release()
        assert await waiting == term + 1
        assert (spec(server)["holderIdentity"], first.term) == ("b", 0)

    run(body)


def test_a_standby_takes_over_when_the_holder_is_dead_but_not_before() -> None:
    async def body(server: FakeApi, lease: Callable[..., Lease]) -> None:
        term = await lease("a", 2.0).acquire()
        began = time.monotonic()
        assert await lease("b", 2.0).acquire() == term + 1
        assert time.monotonic() - began >= 2.0  # the holder's whole time was waited out

    run(body)


def test_the_same_operator_restarted_waits_for_nothing_and_still_gets_a_higher_term() -> None:
    async def body(server: FakeApi, lease: Callable[..., Lease]) -> None:
        term = await lease("a").acquire()
        assert await lease("a").acquire() == term + 1

    run(body)


def test_a_lease_made_anew_does_not_turn_the_term_back() -> None:
    async def body(server: FakeApi, lease: Callable[..., Lease]) -> None:
        term = await lease("a").acquire()
        await server.gone("leases", "backupsync-operator", "operators")
        await asyncio.sleep(1.1)
        assert await lease("b").acquire() > term

    run(body)


def test_of_many_exactly_one_becomes_active() -> None:
    async def body(server: FakeApi, lease: Callable[..., Lease]) -> None:
        leases = [lease(name) for name in "abcdef"]
        tasks = [asyncio.create_task(one.acquire()) for one in leases]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0.2)
        assert sum(one.held for one in leases) == 1
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(body)


@pytest.mark.parametrize("taker", ["b", "a"])
def test_a_holder_that_finds_another_in_its_place_gives_up(taker: str) -> None:
    async def body(server: FakeApi, lease: Callable[..., Lease]) -> None:
        first = lease("a")
        await first.acquire()
        change = {"holderIdentity": taker, "leaseTransitions": first.term + 1}
        await server.change("leases", "backupsync-operator", {"spec": change}, "operators")
        with pytest.raises(LeaseLost, match=f"{taker} holds it now"):
            await first.hold()
        assert not first.held

    run(body)


def test_a_holder_that_cannot_renew_gives_up_before_another_may_take_over() -> None:
    async def body(server: FakeApi, lease: Callable[..., Lease]) -> None:
        first = lease("a", 2.0)
        await first.acquire()
        server.refuse = lambda *_: Refusal(500, "InternalError", "etcd has no leader")
        with pytest.raises(LeaseLost, match="not renewed in time"):
            await first.hold()

    run(body)
    assert DEADLINE_FRACTION + RETRY_FRACTION < 1


def test_a_lost_answer_is_no_loss_of_the_lease() -> None:
    async def body(server: FakeApi, lease: Callable[..., Lease]) -> None:
        first = lease("a")
        await first.acquire()
        # What a renewal whose answer was lost leaves behind: another version, the same holder and term.
        await server.change("leases", "backupsync-operator", {"spec": {"renewTime": "later"}}, "operators")
        renewed, before = asyncio.create_task(first.hold()), first.renewed_at
        while first.renewed_at == before:
            assert not renewed.done()
            await asyncio.sleep(0.01)
        renewed.cancel()

    run(body)
