"""What goes wrong around the operator: refusals, names taken, nodes lost, events missed, a standby."""

from collections.abc import Callable
from typing import Any

import pytest
from fake_api import Object, Refusal
from operator_cluster import Cluster, forever, job

from backupsync.kube import names
from backupsync_operator.lease import LeaseLost

LOST = {"runPolicy": {"nodeLostGraceSeconds": 0.1}}


def posts(cluster: Cluster, name: str = "") -> int:
    return sum((verb, plural) == ("POST", "pods") and name in pod for verb, plural, pod in cluster.api.writes)


def refuse_pods(code: int, reason: str, message: str) -> Callable[..., Refusal | None]:
    def refuse(verb: str, plural: str, name: str, body: Object) -> Refusal | None:
        return Refusal(code, reason, message) if (verb, plural) == ("POST", "pods") else None

    return refuse


def node(name: str, ready: str) -> Object:
    condition = {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}
    return {"metadata": {"name": name}, "status": {"conditions": [condition]}}


def test_a_spec_that_only_we_can_judge_is_refused_with_every_reason_until_it_is_edited(
    run: Callable[..., Any],
) -> None:
    async def body(cluster: Cluster) -> None:
        async with cluster.operator() as operator:
            bad = job(**forever())
            bad["spec"]["aggregation"] |= {"wire": {"transport": "Ipc"}}
            bad["spec"]["checkpoint"] = {"path": "/nowhere"}
            await cluster.api.put("backupsyncjobs", bad)
            await cluster.until("the refusal", lambda: cluster.condition("Accepted").get("status") == "False")
            refusal = cluster.condition("Accepted")
            assert refusal["reason"] == "InvalidSpec"
            await cluster.quiet()
            looks = operator.metrics.read("backupsync_operator_reconcile_seconds_count")
            assert (looks, cluster.pods()) == (1, set())
            await cluster.api.change(
                "backupsyncjobs", "digits", {"spec": {"aggregation": {"wire": None}, "checkpoint": None}}
            )
            await cluster.until("training", lambda: cluster.state() == "Running")
            assert cluster.condition("Accepted")["status"] == "True"

    run(body)


def test_a_broken_template_shows_the_servers_own_words_and_is_not_tried_in_a_storm(
    run: Callable[..., Any],
) -> None:
    async def body(cluster: Cluster) -> None:
        words = (
            'spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to limit'
        )
        cluster.api.refuse = refuse_pods(422, "Invalid", words)
        async with cluster.operator():
            await cluster.api.put("backupsyncjobs", job(workers=20, **forever()))
            await cluster.until("the words", lambda: words in str(cluster.condition("Accepted")))
            assert cluster.condition("Accepted")["status"] == "False"
            first = posts(cluster)
            assert first <= 8
            await cluster.until("another try", lambda: posts(cluster) > first)
            assert posts(cluster) == first + 1  # one pod, not a volley
            cluster.api.refuse = lambda *_: None
            await cluster.api.change(  # an edit is tried at once
                "backupsyncjobs",
                "digits",
                {"spec": {"worker": {"template": {"metadata": {"labels": {"a": "b"}}}}}},
            )
            await cluster.until("training", lambda: cluster.state() == "Running")
            assert cluster.condition("Accepted")["status"] == "True"

    run(body)


def test_a_quota_heals_by_itself(run: Callable[..., Any]) -> None:
    async def body(cluster: Cluster) -> None:
        words = (
            'pods "x" is forbidden: exceeded quota: team, requested: pods=1, used: pods=8, limited: pods=8'
        )
        cluster.api.refuse = refuse_pods(403, "Forbidden", words)
        async with cluster.operator():
            await cluster.api.put("backupsyncjobs", job(**forever()))
            await cluster.until("the words", lambda: "exceeded quota" in str(cluster.condition("Ready")))
            assert cluster.condition("Accepted")["status"] == "True"
            cluster.api.refuse = lambda *_: None
            await cluster.until("training", lambda: cluster.state() == "Running")

    run(body)


@pytest.mark.parametrize(
    ("plural", "kind", "name"),
    [
        ("pods", "Pod", "digits-worker-1-1"),
        ("pods", "Pod", "digits-aggregator-1"),
        ("services", "Service", "digits-aggregator"),
    ],
)
def test_a_name_taken_by_a_stranger_is_told_and_left_alone_until_it_is_free(
    run: Callable[..., Any], plural: str, kind: str, name: str
) -> None:
    async def body(cluster: Cluster) -> None:
        made = await cluster.api.put("backupsyncjobs", job(**forever()))
        # He may bear our labels: what counts is who owns him.
        labels = names.job_labels("digits", made["metadata"]["uid"])
        status = {"phase": "Running", "podIP": "127.0.0.1"}
        meta = {"name": name, "labels": labels}
        await cluster.api.put(plural, {"kind": kind, "metadata": meta, "spec": {}, "status": status})
        async with cluster.operator():
            await cluster.until("the condition", lambda: "NameTaken" in str(cluster.status()))
            assert cluster.api.get(plural, name) is not None
            await cluster.api.gone(plural, name)
            await cluster.until("training", lambda: cluster.state() == "Running")
            assert name in str(cluster.status()) or plural == "services"

    run(body)


def test_a_job_of_another_controller_is_not_touched(run: Callable[..., Any]) -> None:
    async def body(cluster: Cluster) -> None:
        async with cluster.operator():
            other = job("other", runPolicy={"managedBy": "kueue.x-k8s.io/multikueue"})
            await cluster.api.put("backupsyncjobs", other)
            ours = job(runPolicy={"managedBy": "backupsync.dev/operator"})
            await cluster.api.put("backupsyncjobs", ours)
            await cluster.until("the second has succeeded", lambda: cluster.state() == "Succeeded")
            assert cluster.status("other") == {}
            assert not any("other" in name for _, _, name in cluster.api.writes)

    run(body)


def test_a_pod_on_a_lost_node_is_forced_away_and_replaced(run: Callable[..., Any]) -> None:
    async def body(cluster: Cluster) -> None:
        async with cluster.operator():
            for name in ("n1", "n2"):
                await cluster.api.put("nodes", node(name, "True"))
            await cluster.api.put("backupsyncjobs", job(**forever(), **LOST))
            await cluster.until("training", lambda: cluster.state() == "Running")
            await cluster.api.change("pods", "digits-worker-2-1", {"spec": {"nodeName": "n2"}})
            await cluster.api.put("nodes", node("n2", "Unknown"))
            await cluster.until("its successor", lambda: "digits-worker-2-2" in cluster.running_pods())
            await cluster.until("it is gone", lambda: "digits-worker-2-1" not in cluster.pods())
            ranks = {r["rank"]: r for r in cluster.status()["ranks"]}
            assert ranks[2]["crashesTotal"] == 0

    run(body)


def test_a_pod_of_a_deleted_job_on_a_lost_node_is_forced_away(run: Callable[..., Any]) -> None:
    async def body(cluster: Cluster) -> None:
        async with cluster.operator():
            await cluster.api.put("nodes", node("n2", "True"))
            await cluster.api.put("backupsyncjobs", job(**forever()))
            await cluster.until("training", lambda: cluster.state() == "Running")
            cluster.kubelet.stopped = True
            await cluster.api.change("pods", "digits-worker-2-1", {"spec": {"nodeName": "n2"}})
            await cluster.api.put("nodes", node("n2", "Unknown"))
            # The garbage collector has marked the pod; its kubelet will never confirm.
            meta = {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30}
            await cluster.api.change(
                "pods", "digits-worker-2-1", {"metadata": {**meta, "ownerReferences": []}}
            )
            await cluster.api.gone("backupsyncjobs", "digits")
            await cluster.until("nothing is left", lambda: not cluster.pods())

    run(body)


def test_deletions_that_the_watch_has_missed_are_found_out(run: Callable[..., Any]) -> None:
    async def body(cluster: Cluster) -> None:
        async with cluster.operator() as operator:
            await cluster.api.put("backupsyncjobs", job(**forever()))
            await cluster.until("training", lambda: cluster.state() == "Running")
            await cluster.quiet()
            await cluster.api.gone("pods", "digits-worker-1-1", unseen=True)
            await cluster.quiet()
            assert "digits-worker-1-2" not in cluster.pods()
            operator.sweep_soon()
            await cluster.until("its successor runs", lambda: "digits-worker-1-2" in cluster.running_pods())

    run(body)


def test_the_watches_survive_a_restart_of_the_server_with_its_history_gone(run: Callable[..., Any]) -> None:
    async def body(cluster: Cluster) -> None:
        async with cluster.operator():
            await cluster.api.put("backupsyncjobs", job(**forever()))
            await cluster.until("training", lambda: cluster.state() == "Running")
            cluster.api.forget_history()
            cluster.api.cut_watches()
            await cluster.kubelet.exit("digits-worker-1-1", 1, "a crash")
            await cluster.until("its successor runs", lambda: "digits-worker-1-2" in cluster.running_pods())
            await cluster.api.put("backupsyncjobs", job("second"))
            await cluster.until("the second has succeeded", lambda: cluster.state("second") == "Succeeded")

    run(body)


def test_a_memory_that_nobody_wrote_stops_this_job_and_no_other(run: Callable[..., Any]) -> None:
    async def body(cluster: Cluster) -> None:
        broken = job("broken") | {"status": {"memory": {"phase": 7}}}
        await cluster.api.put("backupsyncjobs", broken)
        async with cluster.operator():
            await cluster.api.put("backupsyncjobs", job())
            await cluster.until("the other has succeeded", lambda: cluster.state() == "Succeeded")
            assert not any("broken" in name for name in cluster.pods())

    run(body)


def test_a_standby_is_ready_and_idle_and_goes_on_where_the_active_one_ended(run: Callable[..., Any]) -> None:
    async def body(cluster: Cluster) -> None:
        first = cluster.start(identity="a")
        await cluster.api.put("backupsyncjobs", job(**forever()))
        await cluster.until("training", lambda: cluster.state() == "Running")
        standby = cluster.start(identity="b", lease_seconds=2.0)

        def ready() -> bool:
            checks = standby.health.ready
            return bool(checks) and standby.health.problems(checks) == []

        await cluster.until("the standby is ready", ready)
        assert not standby.store.jobs
        term = first.metrics.read("backupsync_operator_term")
        await cluster.stop(first)
        await cluster.until(
            "the standby is active", lambda: standby.metrics.read("backupsync_operator_active")
        )
        assert standby.metrics.read("backupsync_operator_term") == term + 1
        aggregator = cluster.kubelet.aggregator("digits-aggregator-1")
        assert aggregator is not None
        await cluster.until("the new term is told", lambda: aggregator.desired.term == term + 1)
        await cluster.finish("digits-aggregator-1")
        await cluster.until("the job has succeeded", lambda: cluster.state() == "Succeeded")
        assert cluster.pods() == {f"digits-worker-{r}-1" for r in range(3)} | {"digits-aggregator-1"}
        await cluster.stop(standby)

    run(body)


def test_a_key_that_somebody_deleted_is_made_again_and_is_the_same(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backupsync_operator.children.STARTING_SECONDS", 0.0)

    async def body(cluster: Cluster) -> None:
        cluster.kubelet.runs = lambda _: False
        async with cluster.operator() as operator:
            await cluster.api.put("backupsyncjobs", job(**forever()))
            await cluster.until("the pods", lambda: len(cluster.pods()) == 4)
            key = cluster.api.get("secrets", "digits-key")
            assert key is not None
            await cluster.api.gone("secrets", "digits-key")
            for name in operator.store.jobs:
                operator.queue.add(name)  # a resync
            made = await cluster.until("the key", lambda: cluster.api.get("secrets", "digits-key"))
            assert made["data"] == key["data"]

    run(body)


def test_in_one_namespace_it_asks_for_nothing_outside(run: Callable[..., Any]) -> None:
    async def body(cluster: Cluster) -> None:
        await cluster.api.put("backupsyncjobs", job("elsewhere"), "other")
        async with cluster.operator(namespaces=("default",)):
            await cluster.api.put("backupsyncjobs", job())
            await cluster.until("the job has succeeded", lambda: cluster.state() == "Succeeded")
        assert {namespace for _, namespace in cluster.api.reads} == {"default", "operators"}
        assert "nodes" not in {plural for plural, _ in cluster.api.reads}
        assert not any("elsewhere" in name for _, _, name in cluster.api.writes)

    run(body)


def test_an_operator_that_lost_its_lease_ends_and_writes_nothing_more(run: Callable[..., Any]) -> None:
    async def body(cluster: Cluster) -> None:
        operator = cluster.start(lease_seconds=2.0)
        await cluster.api.put("backupsyncjobs", job(**forever()))
        await cluster.until("training", lambda: cluster.state() == "Running")
        taken = {
            "holderIdentity": "another",
            "leaseTransitions": int(operator.metrics.read("backupsync_operator_term")) + 1,
        }
        await cluster.api.change("leases", "backupsync-operator", {"spec": taken}, "operators")
        with pytest.raises(LeaseLost):
            await cluster.until("its end", lambda: False)
        written = len(cluster.api.writes)
        await cluster.kubelet.exit("digits-worker-0-1", 1, "a crash")
        with pytest.raises(LeaseLost):
            await cluster.stop(operator)
        assert [w for w in cluster.api.writes[written:] if w[1] != "leases"] == []
        assert (
            cluster.api.get("leases", "backupsync-operator", "operators")["spec"]["holderIdentity"]
            == "another"
        )

    run(body)
