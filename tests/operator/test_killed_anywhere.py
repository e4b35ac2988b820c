"""Killed at its every write, before the API server hears it or before the answer is heard, and started again:
the operator brings about the same objects as if nothing had been.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from operator_cluster import Cluster, job

CLAIM = {"spec": {"resources": {"requests": {"storage": "1Gi"}}}}


async def whole_life(cluster: Cluster) -> None:
    """Create, train, scale up, suspend, resume, finish; what comes of it must be the same every time."""
    api, kubelet = cluster.api, cluster.kubelet
    training = {"iterations": 10**6, "batchSize": 4, "optimizer": {"name": "SGD", "lr": 0.1}}
    await api.put("backupsyncjobs", job(training=training, checkpoint={"volumeClaimTemplate": CLAIM}))
    await cluster.until("training", lambda: cluster.state() == "Running")
    await api.change("backupsyncjobs", "digits", {"spec": {"aggregation": {"backupWorkers": 2}}})
    await cluster.until("one more", lambda: "digits-worker-3-1" in cluster.running_pods())
    await api.change("backupsyncjobs", "digits", {"spec": {"runPolicy": {"suspend": True}}})
    await cluster.until("suspension", lambda: cluster.state() == "Suspended" and not cluster.pods())
    await api.change("backupsyncjobs", "digits", {"spec": {"runPolicy": {"suspend": False}}})
    await cluster.until("training again", lambda: cluster.state() == "Running")
    aggregator = kubelet.aggregator("digits-aggregator-2")
    assert aggregator is not None
    aggregator.total = 0
    await cluster.until("the end", lambda: cluster.state() == "Succeeded" and not cluster.running_pods())
    await cluster.until("no budget", lambda: not api.all("poddisruptionbudgets"))


def outcome(cluster: Cluster) -> dict[str, Any]:
    """Everything that must not depend on when the operator was killed."""
    status = cluster.status()
    return {
        "objects": sorted(
            (plural, held["metadata"]["name"], held.get("status", {}).get("phase"))
            for plural in ("pods", "services", "persistentvolumeclaims", "secrets")
            for held in cluster.api.all(plural)
        ),
        "selector": [s["spec"]["selector"]["backupsync.dev/attempt"] for s in cluster.api.all("services")],
        "members": [(r["rank"], r["attempt"]) for r in status["ranks"]],
        "budgets": [(r["crashesTotal"], r["losses"], r["evictions"]) for r in status["ranks"]],
        "conditions": {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]},
        "epoch": status["aggregator"]["epoch"],
    }


class Reaper:
    """Kills the operator at its every `patience`-th write, and starts it again."""

    def __init__(self, cluster: Cluster, patience: int, moment: str) -> None:
        self.cluster, self.patience = cluster, patience
        self.operator = cluster.start()
        self.kills, self._writes, self._dying = 0, 0, asyncio.Event()
        self._over = False
        setattr(cluster.api, moment, self._count)

    def _count(self, verb: str, plural: str, name: str) -> None:
        if plural in ("leases", "events") or self._dying.is_set() or self._over:
            return
        self._writes += 1
        if self._writes == self.patience:
            self.cluster.sever(self.operator)
            self._dying.set()

    async def rest(self) -> None:
        """Kill no more."""
        self._over = True
        await self.cluster.until("the last kill", lambda: not self._dying.is_set())

    async def reap(self) -> None:
        while True:
            await self._dying.wait()
            await self.cluster.kill(self.operator)
            self.operator = self.cluster.start()
            self.kills, self._writes = self.kills + 1, 0
            self._dying.clear()


async def disturbed(cluster: Cluster, patience: int, moment: str) -> tuple[dict[str, Any], int]:
    reaper = Reaper(cluster, patience, moment)
    async with cluster.beside(reaper.reap()):
        await whole_life(cluster)
        await reaper.rest()
    assert reaper.operator.metrics.read("backupsync_operator_overlapping_reconciles_total") == 0
    await cluster.stop(reaper.operator)
    return outcome(cluster), reaper.kills


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    # Two writes come before a step ahead: the operator's term in the status, and the Secret it may not read.
    ("patience", "moment"),
    [(3, "after"), (4, "before"), (4, "after"), (6, "before")],
)
def test_killed_at_any_write_it_brings_about_the_same_objects(
    run: Callable[..., Any], patience: int, moment: str
) -> None:
    async def undisturbed(cluster: Cluster) -> dict[str, Any]:
        async with cluster.operator():
            await whole_life(cluster)
        return outcome(cluster)

    wanted = run(undisturbed)
    found, kills = run(lambda cluster: disturbed(cluster, patience, moment))
    print(f"killed {kills} times, {moment} every write number {patience}")
    assert found == wanted
    assert kills >= 4
