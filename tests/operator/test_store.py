"""The store of what the informers saw: trimmed, by job, waking for nothing that is not read."""

from typing import Any

from backupsync.kube import names
from backupsync_operator.kinds import JOBS, NODES, PODS, SERVICES
from backupsync_operator.queue import Key
from backupsync_operator.store import Store

KEY = Key("default", "digits")


def thing(name: str, version: int = 1, uid: str = "", **more: Any) -> dict[str, Any]:
    labels = {names.JOB_LABEL: "digits", names.UID_LABEL: "uid-1"}
    meta = {
        "name": name,
        "namespace": "default",
        "uid": uid or f"uid of {name}",
        "resourceVersion": str(version),
        "labels": labels,
        "ownerReferences": [{"uid": "uid-1"}],
        "managedFields": [{"manager": "kubectl"}],
    }
    return {"metadata": meta, "spec": {"nodeName": "n1", "containers": [{"name": "worker"}]}, **more}


def node(name: str, ready: str, beat: str = "1") -> dict[str, Any]:
    conditions = [
        {"type": "Ready", "status": ready, "lastHeartbeatTime": beat},
        {"type": "DiskPressure", "status": "False", "lastHeartbeatTime": beat},
    ]
    return {
        "metadata": {"name": name, "uid": name, "resourceVersion": beat},
        "status": {"conditions": conditions},
    }


def test_a_pod_is_found_by_its_job_and_holds_only_what_is_read() -> None:
    store = Store()
    assert store.put(PODS, thing("p", status={"phase": "Running", "hostIP": "10.0.0.1"})) == (KEY,)
    held = store.owned(PODS, KEY, "uid-1")["p"]
    assert held["status"] == {"phase": "Running"}
    assert held["spec"] == {"nodeName": "n1"}
    assert "managedFields" not in held["metadata"]
    assert store.owned(PODS, KEY, "uid-2") == {}
    stranger = thing("q")
    del stranger["metadata"]["ownerReferences"]
    assert store.put(PODS, stranger) == (KEY,)
    assert set(store.owned(PODS, KEY, "uid-1")) == {"p"}


def test_what_is_not_read_wakes_nobody() -> None:
    store = Store()
    store.put(PODS, thing("p", status={"phase": "Running"}))
    assert store.put(PODS, thing("p", 2, status={"phase": "Running", "qosClass": "Burstable"})) == ()
    assert store.put(PODS, thing("p", 3, status={"phase": "Failed"})) == (KEY,)


def test_our_own_writes_of_a_jobs_status_wake_nobody_but_edits_do() -> None:
    store = Store()
    job = thing("digits", uid="uid-1", status={})
    assert store.put(JOBS, job) == (KEY,)
    assert store.put(JOBS, {**thing("digits", 2, "uid-1"), "status": {"state": "Running"}}) == ()
    edited = thing("digits", 3, "uid-1", status={"state": "Running"})
    edited["spec"]["runPolicy"] = {"suspend": True}
    assert store.put(JOBS, edited) == (KEY,)
    found = store.job(KEY)
    assert found is not None
    assert found["metadata"]["resourceVersion"] == "3"


def test_an_older_version_does_not_overwrite_a_newer_one() -> None:
    store = Store()
    store.put(PODS, thing("p", 10, status={"phase": "Running"}))
    assert store.put(PODS, thing("p", 9, status={"phase": "Pending"})) == ()
    assert store.children(PODS, KEY)["p"]["status"]["phase"] == "Running"


def test_the_deletion_of_a_predecessor_leaves_its_successor() -> None:
    store = Store()
    store.put(SERVICES, thing("s", uid="new"))
    assert store.remove(SERVICES, thing("s", uid="old")) == ()
    assert "s" in store.children(SERVICES, KEY)
    assert store.remove(SERVICES, thing("s", uid="new")) == (KEY,)
    assert store.children(SERVICES, KEY) == {}


def test_a_node_wakes_the_jobs_on_it_and_no_heartbeat_does() -> None:
    store = Store()
    store.put(PODS, thing("p", status={"phase": "Running"}))
    assert store.put(NODES, node("n2", "True")) == ()
    assert store.put(NODES, node("n1", "True")) == (KEY,)
    assert store.put(NODES, node("n1", "True", beat="2")) == ()
    assert store.put(NODES, node("n1", "Unknown", beat="3")) == (KEY,)
    assert store.remove(NODES, node("n1", "Unknown")) == (KEY,)


def test_what_a_list_no_longer_holds_goes_unless_it_came_meanwhile() -> None:
    store = Store()
    for name in ("old", "kept"):
        store.put(PODS, thing(name))
    before = {"uid of old", "uid of kept"}
    store.put(PODS, thing("fresh"))
    assert store.prune(PODS, None, before, {"uid of kept"}) == (KEY,)
    assert set(store.children(PODS, KEY)) == {"kept", "fresh"}
    assert store.prune(PODS, "elsewhere", {"uid of kept"}, set()) == ()
