"""A job's life under the whole operator: created, trained, finished; with no write more than it takes."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from operator_cluster import Cluster, forever, job


def writes(cluster: Cluster) -> Counter[tuple[str, str]]:
    return Counter(
        (verb, plural) for verb, plural, _ in cluster.api.writes if plural not in ("leases", "events")
    )


def test_a_job_runs_to_its_end_with_one_write_per_object_and_transition(run: Callable[..., Any]) -> None:
    async def body(cluster: Cluster) -> None:
        async with cluster.operator() as operator:
            await cluster.api.put("backupsyncjobs", job(**forever()))
            await cluster.until("training", lambda: cluster.state() == "Running")
            assert writes(cluster) == {
                ("POST", "secrets"): 2,  # the operator's own key is one
                ("POST", "services"): 1,
                ("POST", "poddisruptionbudgets"): 1,
                ("POST", "pods"): 4,
                ("PATCH", "backupsyncjobs/status"): 2,  # intended; Running
            }
            await cluster.finish("digits-aggregator-1")
            await cluster.until("the job has succeeded", lambda: cluster.state() == "Succeeded")
            await cluster.until("nothing runs", lambda: not cluster.running_pods())
            await cluster.until("the end is shown", lambda: cluster.status()["workers"]["running"] == 0)
            assert operator.metrics.read("backupsync_operator_overlapping_reconciles_total") == 0
            assert operator.metrics.read("backupsync_operator_jobs", {"state": "Succeeded"}) == 1
        assert cluster.pods() == {f"digits-worker-{r}-1" for r in range(3)} | {"digits-aggregator-1"}
        assert cluster.condition("Succeeded")["status"] == "True"
        assert not cluster.api.all("poddisruptionbudgets")
        reasons = {event["reason"] for event in cluster.api.all("events")}
        assert {"Running", "Completed"} <= reasons

    run(body)


def test_steady_training_costs_no_write_but_progress(run: Callable[..., Any]) -> None:
    async def body(cluster: Cluster) -> None:
        async with cluster.operator() as operator:
            await cluster.api.put("backupsyncjobs", job(**forever()))
            await cluster.until("training", lambda: cluster.state() == "Running")
            await cluster.quiet()
            before = len(cluster.api.writes)
            looks = operator.metrics.read("backupsync_operator_reconcile_seconds_count")
            aggregator = cluster.kubelet.aggregator("digits-aggregator-1")
            assert aggregator is not None
            reached = aggregator.iteration
            await cluster.until("twenty iterations", lambda: aggregator.iteration > reached + 20)
            for key in operator.store.jobs:
                operator.queue.add(key)  # a resync
            await cluster.until(
                "a look",
                lambda: operator.metrics.read("backupsync_operator_reconcile_seconds_count") > looks,
            )
            await cluster.quiet()
            written = [w for w in cluster.api.writes[before:] if w[1] not in ("leases", "events")]
            assert written == []

    run(body)


def test_progress_is_written_at_its_interval_and_wakes_no_look(run: Callable[..., Any]) -> None:
    async def body(cluster: Cluster) -> None:
        async with cluster.operator(progress_seconds=0.2) as operator:
            await cluster.api.put("backupsyncjobs", job(**forever()))
            await cluster.until("training", lambda: cluster.state() == "Running")
            await cluster.until("the pods are shown", lambda: cluster.status()["workers"]["running"] == 3)
            looks = []
            for _ in range(20):  # what there is to decide on at the beginning comes in one by one
                shown = cluster.status()["progress"]["iteration"]
                await cluster.until(
                    "progress", lambda shown=shown: cluster.status()["progress"]["iteration"] > shown
                )
                looks.append(operator.metrics.read("backupsync_operator_reconcile_seconds_count"))
                if looks[-4:] == looks[-1:] * 4:
                    break
            assert looks[-4:] == looks[-1:] * 4, looks

    run(body)


@pytest.mark.parametrize("pod", ["digits-worker-1-1", "digits-aggregator-1"])
def test_a_deleted_pod_is_replaced_under_the_next_attempt(run: Callable[..., Any], pod: str) -> None:
    async def body(cluster: Cluster) -> None:
        async with cluster.operator():
            await cluster.api.put("backupsyncjobs", job(**forever(durable=True)))
            await cluster.until("training", lambda: cluster.state() == "Running")
            await cluster.api.gone("pods", pod)
            successor = pod.removesuffix("1") + "2"
            await cluster.until("its successor runs", lambda: successor in cluster.running_pods())
            assert pod not in cluster.pods()

    run(body)


def test_the_service_points_to_the_next_epoch_before_its_pod_is_there(run: Callable[..., Any]) -> None:
    async def body(cluster: Cluster) -> None:
        async with cluster.operator():
            await cluster.api.put("backupsyncjobs", job(**forever(durable=True)))
            await cluster.until("training", lambda: cluster.state() == "Running")
            await cluster.kubelet.exit("digits-aggregator-1", 1, "a crash")
            await cluster.until("its successor", lambda: "digits-aggregator-2" in cluster.pods())
            order = [(verb, name) for verb, _, name in cluster.api.writes]
            patched = order.index(("PATCH", "digits-aggregator"))
            assert patched < order.index(("POST", "digits-aggregator-2"))
            service = cluster.api.get("services", "digits-aggregator")
            assert service is not None
            assert service["spec"]["selector"]["backupsync.dev/attempt"] == "2"

    run(body)


@pytest.mark.parametrize(
    ("plural", "name"), [("services", "digits-aggregator"), ("poddisruptionbudgets", "digits-worker")]
)
def test_what_somebody_deletes_is_made_again(run: Callable[..., Any], plural: str, name: str) -> None:
    async def body(cluster: Cluster) -> None:
        async with cluster.operator():
            await cluster.api.put("backupsyncjobs", job(**forever()))
            await cluster.until("training", lambda: cluster.state() == "Running")
            await cluster.api.gone(plural, name)
            await cluster.until("it is back", lambda: cluster.api.get(plural, name))
            assert "digits-worker-0-1" in cluster.running_pods()

    run(body)


def test_what_somebody_changes_is_put_right(run: Callable[..., Any]) -> None:
    async def body(cluster: Cluster) -> None:
        async with cluster.operator():
            await cluster.api.put("backupsyncjobs", job(**forever()))
            await cluster.until("training", lambda: cluster.state() == "Running")
            await cluster.api.change("poddisruptionbudgets", "digits-worker", {"spec": {"minAvailable": 0}})

            def restored() -> bool:
                held = cluster.api.get("poddisruptionbudgets", "digits-worker")
                return held is not None and held["spec"]["minAvailable"] == 2

            await cluster.until("the budget is 2 again", restored)

    run(body)


def test_scaling_starts_and_stops_only_what_changes(run: Callable[..., Any]) -> None:
    async def body(cluster: Cluster) -> None:
        async with cluster.operator():
            await cluster.api.put("backupsyncjobs", job(**forever()))
            await cluster.until("training", lambda: cluster.state() == "Running")
            uids = {p["metadata"]["name"]: p["metadata"]["uid"] for p in cluster.api.all("pods")}
            await cluster.api.change(
                "backupsyncjobs", "digits", {"spec": {"aggregation": {"workers": 3, "backupWorkers": 2}}}
            )
            await cluster.until("five workers", lambda: len(cluster.running_pods()) == 6)
            await cluster.api.change(
                "backupsyncjobs", "digits", {"spec": {"aggregation": {"workers": 2, "backupWorkers": 0}}}
            )
            await cluster.until("two workers", lambda: len(cluster.running_pods()) == 3)
            await cluster.until("no budget", lambda: not cluster.api.all("poddisruptionbudgets"))
            left = {p["metadata"]["name"]: p["metadata"]["uid"] for p in cluster.api.all("pods")}
            kept = ("digits-aggregator-1", "digits-worker-0-1", "digits-worker-1-1")
            assert {name: left[name] for name in kept} == {name: uids[name] for name in kept}

    run(body)


def test_suspension_leaves_no_pod_and_the_job_goes_on_later(run: Callable[..., Any]) -> None:
    async def body(cluster: Cluster) -> None:
        async with cluster.operator():
            spec = forever(durable=True) | {"runPolicy": {"suspend": True}}
            await cluster.api.put("backupsyncjobs", job(**spec))
            await cluster.until("suspension", lambda: cluster.state() == "Suspended")
            assert not cluster.pods()
            await cluster.api.change("backupsyncjobs", "digits", {"spec": {"runPolicy": {"suspend": False}}})
            await cluster.until("training", lambda: cluster.state() == "Running")
            await cluster.api.change("backupsyncjobs", "digits", {"spec": {"runPolicy": {"suspend": True}}})
            await cluster.until(
                "no pod is left", lambda: cluster.state() == "Suspended" and not cluster.pods()
            )
            assert not cluster.api.all("poddisruptionbudgets")

    run(body)


def test_a_finished_job_is_deleted_when_its_time_has_come(run: Callable[..., Any]) -> None:
    async def body(cluster: Cluster) -> None:
        async with cluster.operator() as operator:
            await cluster.api.put("backupsyncjobs", job(runPolicy={"ttlSecondsAfterFinished": 0}))
            await cluster.until("it is gone", lambda: cluster.api.get("backupsyncjobs", "digits") is None)
            await cluster.until("its pods are gone", lambda: not cluster.pods())
            await cluster.until("it is forgotten", lambda: not operator.store.jobs)
            assert operator.metrics.read("backupsync_operator_jobs") == 0

    run(body)


def test_a_job_deleted_and_made_anew_under_its_name_is_another_job(run: Callable[..., Any]) -> None:
    async def body(cluster: Cluster) -> None:
        async with cluster.operator():
            await cluster.api.put("backupsyncjobs", job(**forever()))
            await cluster.until("training", lambda: cluster.state() == "Running")
            await cluster.api.gone("backupsyncjobs", "digits")
            made = await cluster.api.put("backupsyncjobs", job(workers=1, backups=0, **forever()))
            await cluster.until("the new one trains", lambda: cluster.state() == "Running")
            owners = {pod["metadata"]["ownerReferences"][0]["uid"] for pod in cluster.api.all("pods")}
            assert owners == {made["metadata"]["uid"]}
            assert cluster.pods() == {"digits-aggregator-1", "digits-worker-0-1"}

    run(body)


def test_two_jobs_at_once_are_told_apart(run: Callable[..., Any]) -> None:
    async def body(cluster: Cluster) -> None:
        async with cluster.operator() as operator:
            for name in ("one", "two"):
                await cluster.api.put("backupsyncjobs", job(name))
            for name in ("one", "two"):
                await cluster.until(
                    f"{name} has succeeded", lambda name=name: cluster.state(name) == "Succeeded"
                )
            assert operator.metrics.read("backupsync_operator_overlapping_reconciles_total") == 0

    run(body)
