"""Why a job stands as it does: from its status, its pods and its Events."""

from datetime import UTC, datetime, timedelta

import pytest
from cluster_objects import JOB, job_object, pod_object, pod_path
from fake_kubernetes import status

from backupsync.cluster import Client
from backupsync.cluster.events import belongs
from backupsync.cluster.explain import said_by_pods, said_by_status
from backupsync.cluster.pods import state_of
from backupsync.cluster.types import event_of, job_of
from backupsync.lifecycle.types import ReplicaId

NOW = datetime(2026, 1, 2, 3, 5, tzinfo=UTC)
EVENTS = "/api/v1/namespaces/team/events"
UNSCHEDULABLE = {
    "phase": "Pending",
    "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}
    ],
}


def event(kind, name, reason="Created", moment="2026-01-02T03:04:06Z", **fields):
    return {
        "involvedObject": {"kind": kind, "name": name},
        "reason": reason,
        "message": "said",
        "lastTimestamp": moment,
    } | fields


def test_a_job_that_no_operator_looks_at_is_told_so():
    job = job_of(job_object())
    lines = list(said_by_status(job, NOW))
    assert (
        "no operator has looked at it in 55 s: is one installed, and does it watch namespace team?"
        in lines[1]
    )
    assert len(list(said_by_status(job, job.created + timedelta(seconds=2)))) == 1, "give it a moment"


def test_a_change_that_is_not_taken_up_yet_is_told():
    lines = list(said_by_status(job_of(job_object("Running", observedGeneration=1)), NOW))
    assert "the operator has not taken up the newest change yet (generation 2)" in lines


def test_conditions_counters_and_decisions_are_told(client, fake):
    told = job_object(
        "Running",
        conditions=[{"type": "Ready", "status": "False", "reason": "BelowQuorum", "message": "1 of 2"}],
        ranks=[{"rank": 1, "attempt": 4, "crashes": 2, "crashesTotal": 3}, {"rank": 0, "attempt": 1}],
        decisions=[{"text": f"decision {i}"} for i in range(12)],
        aggregator={"epoch": 2, "crashes": 1},
    )
    fake.put(JOB, told)
    lines = client.explain("digits")
    assert "condition Ready=False (BelowQuorum): 1 of 2" in lines
    assert "worker 1 (now digits-worker-1-4): 3 crashes, 2 crashes in a row without a gradient" in lines
    assert "aggregator: 1 crashes in a row, 0 losses" in lines
    assert next(line for line in lines if "decision" in line) == "operator: decision 4"
    assert lines[-1] == "operator: decision 11"


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (UNSCHEDULABLE, "Unschedulable: 0/2 nodes"),
        ({"phase": "Failed", "reason": "Evicted", "message": "disk"}, "Evicted: disk"),
        (
            {"containerStatuses": [{"name": "worker", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]},
            "ImagePullBackOff",
        ),
        (
            {
                "phase": "Failed",
                "containerStatuses": [
                    {
                        "name": "worker",
                        "state": {
                            "terminated": {"exitCode": 137, "reason": "OOMKilled", "message": "a\nb\n"}
                        },
                    }
                ],
            },
            "OOMKilled (exit code 137): b",
        ),
        (
            {
                "initContainerStatuses": [
                    {"name": "init", "state": {"waiting": {"reason": "Err", "message": "m"}}}
                ]
            },
            "init container init: Err: m",
        ),
    ],
)
def test_what_keeps_a_pod_from_running_is_told(state, said):
    pod = {"metadata": {"name": "p"}, "status": state}
    assert state_of(ReplicaId("worker", 0, 1), pod).problem == said


def test_only_the_newest_pod_of_a_rank_is_told_of():
    old = pod_object(state="terminated") | {"metadata": {"name": "digits-worker-0-1"}}
    new = pod_object(attempt=2) | {"metadata": {"name": "digits-worker-0-2"}}
    pods = [(ReplicaId("worker", 0, 1), old), (ReplicaId("worker", 0, 2), new)]
    assert list(said_by_pods(pods)) == []
    assert list(said_by_pods(pods[:1])) == ["pod digits-worker-0-1: Failed: Error (exit code 1)"]


def test_what_is_the_same_of_several_pods_is_told_once(client, fake):
    fake.put(JOB, job_object("Pending"))
    for rank in range(3):
        stuck = {"status": {"phase": "Pending", "conditions": UNSCHEDULABLE["conditions"]}}
        fake.put(pod_path(rank=rank), pod_object(rank=rank, state="waiting") | stuck)
        told = event(
            "Pod", f"digits-worker-{rank}-1", "FailedScheduling", type="Warning", message="0/2 nodes"
        )
        fake.put(f"{EVENTS}/e{rank}", told)
        other = event("Pod", f"digits-worker-{rank}-1", "BackOff", type="Warning", message="again", count=2)
        fake.put(f"{EVENTS}/f{rank}", other)
    assert client.explain("digits")[1:] == [
        "pod digits-worker-0-1 and 2 more: Pending: Unschedulable: 0/2 nodes",
        "event Pod/digits-worker-0-1 and 2 more: BackOff: again (6×)",
    ], "what the pods say the events need not repeat"


def test_a_sidecar_does_not_keep_a_pod_from_having_ended():
    pod = pod_object(state="terminated")
    pod["status"]["phase"] = "Running"
    pod["status"]["containerStatuses"].append({"name": "side", "state": {"running": {}}})
    found = state_of(ReplicaId("worker", 0, 1), pod)
    assert found.ended
    assert found.begun


def test_events_are_those_of_the_job_its_pods_and_its_claim(client: Client, fake):
    fake.put(JOB, job_object("Running"))
    other = {"involvedObject": {"kind": "BackupSyncJob", "name": "digits", "uid": "an-earlier-one"}}
    for index, document in enumerate(
        [
            event("BackupSyncJob", "digits", "Running", "2026-01-02T03:04:09Z"),
            event("BackupSyncJob", "digits") | other,
            event("BackupSyncJob", "digits-2"),
            event("Pod", "digits-worker-0-1", "Started", "2026-01-02T03:04:07Z", type="Warning", count=3),
            event("Pod", "digits-worker-0-1", "Old", "2026-01-02T02:00:00Z"),
            event("Pod", "digits-2-worker-0-1"),
            event("Pod", "digits-worker-x"),
            event("PersistentVolumeClaim", "digits-checkpoint", "Bound", "2026-01-02T03:04:08Z"),
        ]
    ):
        fake.put(f"{EVENTS}/e{index}", document)
    found = client.events("digits")
    assert [e.reason for e in found] == ["Started", "Bound", "Running"]
    assert (found[0].kind, found[0].count, found[0].object) == ("Warning", 3, "Pod/digits-worker-0-1")


def test_events_of_the_newer_api_are_read_too():
    document = event("Pod", "p", lastTimestamp=None) | {
        "eventTime": "2026-01-02T03:04:05.678901Z",
        "series": {"count": 7, "lastObservedTime": "2026-01-02T03:09:00.000000Z"},
        "reportingComponent": "operator",
    }
    found = event_of(document)
    assert (found.count, found.source, found.time.minute) == (7, "operator", 9)
    assert not belongs({"involvedObject": "nonsense"}, job_of(job_object()))


def test_a_person_who_may_not_read_pods_is_told_the_rest(client, fake):
    fake.put(JOB, job_object("Running"))
    for path in ("/api/v1/namespaces/team/pods", EVENTS):
        fake.refusals.append(("GET", path, 403, status(403, "Forbidden", "no")))
    lines = client.explain("digits")
    assert lines[0] == "state Running"
    assert [line.partition(":")[0] for line in lines[1:]] == [
        "pods cannot be looked at",
        "events cannot be looked at",
    ]


def test_what_is_wrong_with_pods_and_the_newest_warnings_come_last(client, fake):
    fake.put(JOB, job_object("Pending"))
    fake.put(pod_path(), pod_object(state="waiting") | {"status": UNSCHEDULABLE})
    fake.put(f"{EVENTS}/e", event("Pod", "digits-worker-0-1", "FailedScheduling", type="Warning", count=2))
    assert client.explain("digits")[1:] == [
        "pod digits-worker-0-1: Pending: Unschedulable: 0/2 nodes",
        "event Pod/digits-worker-0-1: FailedScheduling: said (2×)",
    ]
