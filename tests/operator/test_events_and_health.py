"""Events that repeat, metrics that vanish with their job, health judged by what gets done, and settings."""

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from fake_api import FakeApi, Refusal
from kubernetes.aio.client import Configuration

from backupsync.errors import BackupSyncError
from backupsync_operator.api import Api
from backupsync_operator.events import Events, event_name
from backupsync_operator.health import Health, HttpServer
from backupsync_operator.metrics import Metrics
from backupsync_operator.queue import Key
from backupsync_operator.settings import Settings

KEY = Key("default", "digits")
GIVEN = {
    "BACKUPSYNC_WORKER_IMAGE": "worker:1",
    "BACKUPSYNC_AGGREGATOR_IMAGE": "aggregator:1",
    "BACKUPSYNC_LEASE_NAMESPACE": "operators",
}


def run(body: Callable[[FakeApi, Callable[[], Events]], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(60), FakeApi() as server:
            api, tasks = Api(Configuration(host=server.url)), []

            def writer() -> Events:
                events = Events(api, "operator-a", repeat_seconds=0.0)
                tasks.append(asyncio.create_task(events.run()))
                return events

            try:
                await body(server, writer)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await api.close()

    asyncio.run(whole())


def test_the_same_event_again_only_raises_the_count_also_after_a_restart() -> None:
    async def body(server: FakeApi, writer: Callable[[], Events]) -> None:
        first = writer()
        for _ in range(3):
            first.announce(KEY, "uid-1", "Warning", "Crashed", "worker 1 crashed")
        await first.flush(30.0)
        second = writer()
        second.announce(KEY, "uid-1", "Warning", "Crashed", "worker 1 crashed")
        second.announce(KEY, "uid-1", "Warning", "Crashed", "worker 2 crashed")
        await second.flush(30.0)
        counts = {event["message"]: event["count"] for event in server.all("events")}
        assert counts == {"worker 1 crashed": 4, "worker 2 crashed": 1}
        assert all(event["involvedObject"]["uid"] == "uid-1" for event in server.all("events"))

    run(body)


def test_an_event_that_has_expired_is_written_anew() -> None:
    async def body(server: FakeApi, writer: Callable[[], Events]) -> None:
        events = writer()
        events.announce(KEY, "uid-1", "Normal", "Running", "training")
        await events.flush(30.0)
        await server.gone("events", event_name(KEY, "uid-1", "Normal", "Running", "training"))
        events.announce(KEY, "uid-1", "Normal", "Running", "training")
        await events.flush(30.0)
        assert [event["count"] for event in server.all("events")] == [1]

    run(body)


def test_an_event_that_is_refused_harms_none_after_it() -> None:
    async def body(server: FakeApi, writer: Callable[[], Events]) -> None:
        events = writer()
        server.refuse = lambda *_: Refusal(403, "Forbidden", "no")
        events.announce(KEY, "uid-1", "Normal", "One", "one")
        await events.flush(30.0)
        server.refuse = lambda *_: None
        events.announce(KEY, "uid-1", "Normal", "Two", "x" * 5000)
        await events.flush(30.0)
        assert [(e["reason"], len(e["message"])) for e in server.all("events")] == [("Two", 1024)]

    run(body)


def test_the_series_of_a_job_vanish_with_it() -> None:
    metrics = Metrics()
    metrics.state(KEY, "Pending")
    metrics.state(KEY, "Running")
    metrics.state(Key("default", "other"), "Running")
    assert metrics.read("backupsync_operator_jobs", {"state": "Running"}) == 2
    metrics.state(KEY, None)
    metrics.state(KEY, None)
    assert metrics.read("backupsync_operator_jobs", {"state": "Running"}) == 1
    assert metrics.read("backupsync_operator_jobs", {"state": "Pending"}) == 0
    assert b"digits" not in metrics.exposition()


def test_health_says_what_is_wrong_and_metrics_are_there() -> None:
    async def body() -> None:
        health, problem = Health(), ""
        health.alive["queue"] = lambda: problem
        server = HttpServer(health, Metrics())
        await server.start(0)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session:
            async with session.get("/healthz") as answer:
                assert (answer.status, await answer.text()) == (200, "ok\n")
            problem = "a job has waited 300 s"
            async with session.get("/healthz") as answer:
                assert (answer.status, await answer.text()) == (503, "queue: a job has waited 300 s\n")
            async with session.get("/readyz") as answer:
                assert answer.status == 200
            async with session.get("/metrics") as answer:
                assert "backupsync_operator_overlapping_reconciles_total 0.0" in await answer.text()
        await server.close()

    asyncio.run(body())


def test_settings_come_from_the_environment() -> None:
    more = {
        "BACKUPSYNC_NAMESPACES": "a, b,",
        "BACKUPSYNC_HTTP_PORT": "",
        "BACKUPSYNC_WORKER": "not a setting",
    }
    settings = Settings.from_environment({**GIVEN, **more})
    assert (settings.namespaces, settings.cluster_wide, settings.http_port) == (("a", "b"), False, 8080)
    assert Settings.from_environment(GIVEN).cluster_wide


def test_settings_at_fault_are_all_named_by_their_variables() -> None:
    with pytest.raises(BackupSyncError) as caught:
        Settings.from_environment({**GIVEN, "BACKUPSYNC_WORKERS": "0", "BACKUPSYNC_LOG_FORMAT": "xml"})
    assert "BACKUPSYNC_WORKERS" in str(caught.value)
    assert "BACKUPSYNC_LOG_FORMAT" in str(caught.value)
    with pytest.raises(BackupSyncError, match="BACKUPSYNC_WORKER_IMAGE"):
        Settings.from_environment({})
