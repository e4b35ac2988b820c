"""A job's life under the whole operator: created, trained, finished; with no write more than it takes."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from operator_cluster import Cluster, job


def test_a_job_runs_to_its_end(run: Callable[..., None]) -> None:
    async def body(cluster: Cluster) -> Any:
        async with cluster.operator() as operator:
            await cluster.api.put("backupsyncjobs", job())
            await cluster.until("the job has succeeded", lambda: cluster.state() == "Succeeded")
            await cluster.until("the end is shown", lambda: cluster.status()["workers"]["running"] == 0)
        print(Counter((v, p) for v, p, _ in cluster.api.writes))
        print(cluster.describe())
        assert operator.metrics.read("backupsync_operator_overlapping_reconciles_total") == 0

    run(body)
