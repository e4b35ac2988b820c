"""The operator as a process: configured by its environment, ended by SIGTERM, its exit code telling how."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from operator_cluster import Cluster, job

GIVEN = {
    "BACKUPSYNC_WORKER_IMAGE": "worker:1",
    "BACKUPSYNC_AGGREGATOR_IMAGE": "aggregator:1",
    "BACKUPSYNC_LEASE_NAMESPACE": "operators",
    "BACKUPSYNC_HTTP_PORT": "0",
    "BACKUPSYNC_LOG_FORMAT": "json",
}


def kubeconfig(path: Path, server: str) -> str:
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "contexts": [{"name": "test", "context": {"cluster": "fake", "user": "me"}}],
                "clusters": [{"name": "fake", "cluster": {"server": server}}],
                "users": [{"name": "me", "user": {"token": "a-token"}}],
            }
        )
    )
    return str(path)


async def start(**environment: str) -> Process:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("BACKUPSYNC_", "KUBE"))}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "backupsync_operator", env={**clean, **environment}, stderr=PIPE
    )


def lease(cluster: Cluster) -> dict[str, Any]:
    held = cluster.api.get("leases", "backupsync-operator", "operators")
    return {} if held is None else dict(held["spec"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_0_when_told_to_and_gives_its_lease_back(
    run: Callable[..., Any], tmp_path: Path, number: signal.Signals
) -> None:
    async def body(cluster: Cluster) -> None:
        config = kubeconfig(tmp_path / "config", cluster.api.url)
        process = await start(**GIVEN, KUBECONFIG=config, BACKUPSYNC_IDENTITY="a")
        await cluster.api.put("backupsyncjobs", job())
        await cluster.until("the pods", lambda: process.returncode is not None or len(cluster.pods()) == 4)
        assert lease(cluster)["holderIdentity"] == "a"
        process.send_signal(number)
        _, said = await process.communicate()
        assert (process.returncode, lease(cluster)["holderIdentity"]) == (0, ""), said.decode()
        assert b"Traceback" not in said

    run(body)


def test_it_ends_with_an_error_when_another_took_its_lease(run: Callable[..., Any], tmp_path: Path) -> None:
    async def body(cluster: Cluster) -> None:
        config = kubeconfig(tmp_path / "config", cluster.api.url)
        process = await start(**GIVEN, KUBECONFIG=config, BACKUPSYNC_LEASE_SECONDS="2")
        await cluster.until("the lease", lambda: process.returncode is not None or lease(cluster))
        taken = {"holderIdentity": "another", "leaseTransitions": lease(cluster)["leaseTransitions"] + 1}
        await cluster.api.change("leases", "backupsync-operator", {"spec": taken}, "operators")
        _, said = await process.communicate()
        assert process.returncode == 1
        assert b"another holds it now" in said or b"not renewed in time" in said
        assert b"Traceback" not in said

    run(body)


def test_settings_at_fault_end_it_with_a_message_that_names_them() -> None:
    async def body() -> None:
        process = await start(BACKUPSYNC_WORKER_IMAGE="worker:1", BACKUPSYNC_WORKERS="many")
        _, said = await process.communicate()
        assert process.returncode == 78
        for name in ("BACKUPSYNC_WORKERS", "BACKUPSYNC_AGGREGATOR_IMAGE", "BACKUPSYNC_LEASE_NAMESPACE"):
            assert name.encode() in said
        assert b"Traceback" not in said

    asyncio.run(body())


def test_without_any_api_server_it_says_so() -> None:
    async def body() -> None:
        process = await start(**GIVEN, KUBECONFIG="/nonexistent/kubeconfig")
        _, said = await process.communicate()
        assert process.returncode == 1
        assert b"no API server is configured" in said

    asyncio.run(body())
