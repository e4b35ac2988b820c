"""The client at the boundary: raw bodies out, the API server's own words and kinds of errors in."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from fake_api import FakeApi, Refusal
from kubernetes.aio.client import Configuration

from backupsync.errors import BackupSyncError
from backupsync_operator.api import (
    AlreadyExists,
    Api,
    Conflict,
    Invalid,
    NotFound,
    Transient,
    connection_facts,
)
from backupsync_operator.keys import job_key, operator_key
from backupsync_operator.kinds import JOBS, NODES, PODS, SECRETS, kind_of


def run(body: Callable[[FakeApi, Api], Awaitable[None]]) -> list[tuple[str, str, str]]:
    asked: list[tuple[str, str, str]] = []

    async def whole() -> None:
        async with asyncio.timeout(60), FakeApi() as server:
            api = Api(Configuration(host=server.url), lambda *what: asked.append(what))
            try:
                await body(server, api)
            finally:
                await api.close()

    asyncio.run(whole())
    return asked


def pod(**more: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": more}


def test_fields_that_the_client_has_never_heard_of_pass_through() -> None:
    async def body(server: FakeApi, api: Api) -> None:
        spec = {
            "containers": [
                {"name": "worker", "env": [{"name": "A", "value": "1"}], "fieldOf2030": {"a": [1]}}
            ]
        }
        made = await api.create(PODS, "default", pod(**spec))
        assert made["spec"] == spec
        held = server.get("pods", "p")
        assert held is not None
        assert held["spec"] == spec

    assert run(body) == [("POST", "pods", "201")]


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (404, "NotFound", NotFound),
        (409, "AlreadyExists", AlreadyExists),
        (409, "Conflict", Conflict),
        (400, "BadRequest", Invalid),
        (403, "Forbidden", Invalid),
        (413, "RequestEntityTooLarge", Invalid),
        (422, "Invalid", Invalid),
        (401, "Unauthorized", Transient),
        (429, "TooManyRequests", Transient),
        (500, "InternalError", Transient),
        (503, "ServiceUnavailable", Transient),
        (504, "Timeout", Transient),
    ],
)
def test_each_refusal_becomes_an_error_of_its_kind_with_the_servers_words(
    code: int, reason: str, kind: type[Exception]
) -> None:
    async def body(server: FakeApi, api: Api) -> None:
        server.refuse = lambda *_: Refusal(code, reason, "in the server's words")
        with pytest.raises(BackupSyncError, match="in the server's words") as caught:
            await api.create(PODS, "default", pod())
        assert type(caught.value) is kind

    assert run(body) == [("POST", "pods", str(code))]


def test_no_answer_at_all_is_transient_and_counted() -> None:
    async def body(server: FakeApi, api: Api) -> None:
        api.configuration.host = "http://127.0.0.1:1"
        with pytest.raises(Transient, match="did not answer"):
            await api.read(PODS, "default", "p")

    assert run(body) == [("GET", "pods", "none")]


def test_an_answer_that_is_no_json_is_an_error_with_its_code() -> None:
    async def body(server: FakeApi, api: Api) -> None:
        async def proxy(_: web.Request) -> web.Response:
            return web.Response(status=502, text="<html>Bad gateway</html>")

        application = web.Application()
        application.router.add_route("*", "/{path:.*}", proxy)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        api.configuration.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
        with pytest.raises(Transient, match="answers 502"):
            await api.read(PODS, "default", "p")
        await runner.cleanup()

    run(body)


def test_only_the_object_of_the_uid_meant_is_deleted() -> None:
    async def body(server: FakeApi, api: Api) -> None:
        made = await api.create(PODS, "default", pod())
        with pytest.raises(Conflict, match="UID in precondition"):
            await api.delete(PODS, "default", "p", uid="another")
        await api.delete(PODS, "default", "p", uid=made["metadata"]["uid"], grace_seconds=0)
        assert server.get("pods", "p") is None
        with pytest.raises(NotFound):
            await api.delete(PODS, "default", "p", uid=made["metadata"]["uid"])

    run(body)


def test_no_polite_end_is_rounded_to_one_by_force() -> None:
    async def body(server: FakeApi, api: Api) -> None:
        made = await api.create(PODS, "default", pod())
        gone = await api.delete(PODS, "default", "p", uid=made["metadata"]["uid"], grace_seconds=0.2)
        assert gone["metadata"]["deletionGracePeriodSeconds"] == 1

    run(body)


def test_uids_come_from_every_page_and_by_selector() -> None:
    async def body(server: FakeApi, api: Api) -> None:
        wanted = set()
        for number in range(3):
            labels = {"team": "a" if number else "b"}
            made = await server.put("pods", {"metadata": {"name": f"p{number}", "labels": labels}})
            wanted |= {made["metadata"]["uid"]} if number else set()
        assert await api.uids(PODS, None, "team=a") == wanted
        assert await api.uids(PODS, "elsewhere") == set()

    run(body)


def test_paths_are_those_of_the_api() -> None:
    assert JOBS.path("team", "digits", "status") == (
        "/apis/backupsync.dev/v1alpha1/namespaces/team/backupsyncjobs/digits/status"
    )
    assert PODS.path() == "/api/v1/pods"
    assert NODES.path("ignored", "n1") == "/api/v1/nodes/n1"
    assert kind_of({"kind": "Pod"}) is PODS


def test_the_informer_gets_the_same_credentials() -> None:
    configuration = Configuration(host="https://10.0.0.1:6443")
    configuration.api_key["BearerToken"] = "bearer the-token"
    configuration.ssl_ca_cert = "/ca.crt"
    assert connection_facts(configuration) == {
        "server": "https://10.0.0.1:6443",
        "ca_path": "/ca.crt",
        "insecure": False,
        "token": "the-token",
    }


def test_the_operators_key_is_made_once_and_read_ever_after() -> None:
    async def body(server: FakeApi, api: Api) -> None:
        keys = await asyncio.gather(*(operator_key(api, "operators", "key") for _ in range(4)))
        assert len(set(keys)) == 1
        assert len(keys[0]) == 32
        assert await operator_key(api, "operators", "key") == keys[0]

    run(body)


@pytest.mark.parametrize("data", [{}, {"key": "bm90IGhleA=="}, {"key": "YWJjZA=="}, {"key": "%%%"}, None])
def test_a_broken_key_is_no_key_and_says_what_to_do(data: dict[str, str] | None) -> None:
    async def body(server: FakeApi, api: Api) -> None:
        await server.put("secrets", {"metadata": {"name": "key"}, "data": data}, "operators")
        with pytest.raises(BackupSyncError, match="secret operators/key"):
            await operator_key(api, "operators", "key")

    assert all(verb == "GET" for verb, _, _ in run(body))


def test_every_job_has_a_key_of_its_own_that_follows_from_the_operators() -> None:
    key = bytes(range(32))
    assert job_key(key, "uid-1") == job_key(key, "uid-1")
    assert len({job_key(key, "uid-1"), job_key(key, "uid-2"), job_key(bytes(32), "uid-1")}) == 3
    assert SECRETS.plural == "secrets"
