"""What the client asks of an API server, and what it makes of its answers."""

import pytest
from cluster_objects import JOB, JOBS, PODS, job_object, pod_object, pod_path
from fake_kubernetes import status

from backupsync.cluster import (
    Client,
    ClusterError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    NotInstalled,
    TimedOut,
    Unreachable,
    connection,
)
from backupsync.cluster.types import job_of

CLAIM = "/api/v1/namespaces/team/persistentvolumeclaims/digits-checkpoint"


def test_the_kubeconfigs_context_names_cluster_and_namespace(kubeconfig, fake):
    with Client() as client:
        assert (client.context, client.namespace) == ("team", "team")
    with Client(context="bare") as client:
        assert client.namespace == "default"
    with Client(context="bare", namespace="mine") as client:
        assert client.namespace == "mine"
        assert client.within("other").namespace == "other"
        assert client.namespace == "mine"
    assert fake.requests == []


def test_a_context_or_kubeconfig_that_is_not_there_is_named(kubeconfig, tmp_path, monkeypatch):
    with pytest.raises(ClusterError, match=r"no context 'prod'; there are: team, bare"):
        Client(context="prod")
    with pytest.raises(ClusterError, match=r"nowhere: there is no such file; name one by --kubeconfig"):
        Client(kubeconfig=tmp_path / "nowhere")
    (tmp_path / "broken").write_text("contexts: 3\n")
    with pytest.raises(ClusterError, match=r"broken: cannot be used"):
        Client(kubeconfig=tmp_path / "broken")


def test_several_kubeconfigs_are_merged(kubeconfig, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.write_text(kubeconfig.read_text().replace("team", "second").replace("bare", "third"))
    monkeypatch.setenv("KUBECONFIG", f"{kubeconfig}:{other}:{tmp_path / 'missing'}")
    with Client(context="second") as client:
        assert client.namespace == "second"


def test_a_pod_without_kubeconfig_uses_its_service_account(fake, tmp_path, monkeypatch):
    from kubernetes.config import incluster_config

    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    for name, text in (("token", "secret"), ("namespace", "team\n"), ("ca.crt", "x")):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(connection, "_SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    with Client() as client:
        assert (client.context, client.namespace) == ("in-cluster", "team")
    with pytest.raises(ClusterError, match="there is no such file"):
        Client(context="named")


def test_a_job_is_read_with_all_that_is_told(client, fake):
    told = job_object(
        "Running",
        conditions=[{"type": "Ready", "status": "True", "reason": "Quorum", "message": "2 of 2"}],
        workers={"desired": 3, "live": 2, "summary": "2/3"},
        ranks=[{"rank": 0, "attempt": 2, "phase": "Running", "crashesTotal": 1, "new": "field"}],
        progress={
            "iteration": 7,
            "iterations": 20,
            "iterationsPerSecond": 3.5,
            "evaluation": {"accuracy": 1},
        },
        startTime="2026-01-02T03:04:06Z",
        memory={"anything": True},
    )
    fake.put(JOB, told)
    job = client.get("digits")
    assert (job.state, job.uid, job.generation, job.finished) == ("Running", "uid-digits", 2, False)
    assert (job.aggregation.workers, job.aggregation.backup_workers) == (2, 1)
    assert job.condition("Ready").reason == "Quorum"
    assert job.condition("Failed") is None
    assert (job.workers.live, job.ranks[0].crashes_total) == (2, 1)
    assert job.progress.evaluation == {"accuracy": 1.0}
    assert (job.start_time - job.created).total_seconds() == 1
    assert fake.requests[0].path == JOB


def test_a_job_that_no_operator_has_seen_is_pending():
    job = job_of(job_object())
    assert (job.state, job.observed_generation, job.conditions) == ("Pending", 0, ())


def test_a_status_that_cannot_be_read_is_said():
    with pytest.raises(ClusterError, match=r"job digits: its status cannot be read"):
        job_of(job_object("Exploded"))


def test_jobs_are_listed_of_one_namespace_or_of_all(client, fake):
    fake.put(JOB, job_object("Running"))
    fake.put(f"{JOBS}/abc", job_object("Failed", name="abc"))
    assert [job.name for job in client.list()] == ["abc", "digits"]
    client.list(all_namespaces=True)
    assert fake.requests[-1].path == "/apis/backupsync.dev/v1alpha1/backupsyncjobs"


def test_size_is_changed_by_one_patch(client, fake):
    fake.put(JOB, job_object("Running"))
    job = client.scale("digits", workers=3, backup_workers=0)
    assert (job.aggregation.workers, job.aggregation.backup_workers) == (3, 0)
    [patch] = fake.asked("PATCH")
    assert patch.body == {"spec": {"aggregation": {"workers": 3, "backupWorkers": 0}}}
    assert patch.content_type == "application/merge-patch+json"
    client.scale("digits", workers=4)
    assert fake.asked("PATCH")[1].body == {"spec": {"aggregation": {"workers": 4}}}
    with pytest.raises(Invalid, match="say what to change"):
        client.scale("digits")


def test_suspension_touches_one_field(client, fake):
    fake.put(JOB, job_object("Running"))
    assert client.suspend("digits").suspend
    assert not client.resume("digits").suspend
    assert [r.body for r in fake.asked("PATCH")] == [
        {"spec": {"runPolicy": {"suspend": wanted}}} for wanted in (True, False)
    ]


def test_deleting_takes_the_very_job_and_says_what_stays(client, fake):
    fake.put(JOB, job_object("Running"))
    fake.put(CLAIM, {})
    assert client.delete("digits") == "digits-checkpoint"
    [deletion] = fake.asked("DELETE")
    assert deletion.body["preconditions"] == {"uid": "uid-digits"}
    assert CLAIM in fake.objects
    fake.put(JOB, job_object("Running"))
    assert client.delete("digits", checkpoints=True) is None
    assert CLAIM not in fake.objects


def test_a_claim_that_the_job_owns_goes_with_it(client, fake):
    fake.put(JOB, job_object("Running"))
    fake.put(CLAIM, {"metadata": {"ownerReferences": [{"uid": "uid-digits"}]}})
    assert client.delete("digits") is None


def test_deleting_waits_for_the_last_pod(client, fake):
    fake.put(JOB, job_object("Running"))
    fake.put(pod_path(), pod_object())
    with pytest.raises(TimedOut, match=r"still there: digits-worker-0-1"):
        client.delete("digits", wait=True, timeout=0.0)
    fake.put(JOB, job_object("Running"))
    fake.remove(pod_path())
    client.delete("digits", wait=True, timeout=30)
    assert fake.asked("GET", PODS)[-1].query["labelSelector"] == "backupsync.dev/job-uid=uid-digits"


@pytest.mark.parametrize(
    ("code", "reason", "kind", "said"),
    [
        (401, "Unauthorized", Forbidden, "log in again"),
        (403, "Forbidden", Forbidden, "ask for the role `edit`"),
        (409, "Conflict", Conflict, "the message"),
        (422, "Invalid", Invalid, "the message"),
        (429, "TooManyRequests", Unreachable, "try again in a moment"),
        (500, "InternalError", Unreachable, "the API server answers 500: the message"),
        (503, "ServiceUnavailable", Unreachable, "the API server answers 503"),
    ],
)
def test_what_the_api_server_refuses_is_an_error_of_its_kind(client, fake, code, reason, kind, said):
    fake.refusals.append(("GET", JOB, code, status(code, reason, "the message")))
    with pytest.raises(kind) as raised:
        client.get("digits")
    assert said in str(raised.value)
    assert "job digits in namespace team" in str(raised.value)


def test_every_cause_of_a_refusal_is_told_with_its_field(client, fake):
    fake.put(JOB, job_object("Running"))
    causes = [
        {"field": "spec.aggregation", "message": "Invalid value: too many"},
        {"field": "spec.training.batchSize", "message": "Invalid value: 0"},
    ]
    fake.refusals.append(("PATCH", JOB, 422, status(422, "Invalid", "everything in one line", causes)))
    with pytest.raises(Invalid) as raised:
        client.scale("digits", workers=2000)
    assert str(raised.value).splitlines()[1:] == [
        "  spec.aggregation: Invalid value: too many",
        "  spec.training.batchSize: Invalid value: 0",
    ]


def test_a_job_that_is_not_there_is_told_from_a_cluster_without_the_operator(client, fake):
    with pytest.raises(NotFound, match=r"job digits in namespace team: not found") as raised:
        client.get("digits")
    assert not isinstance(raised.value, NotInstalled)
    fake.refusals.append(("GET", JOB, 404, b"404 page not found\n"))
    with pytest.raises(NotInstalled, match=r"helm install backupsync"):
        client.get("digits")


def test_an_api_server_that_is_down_is_said_with_its_address(kubeconfig, fake):
    with Client() as client:
        fake.close()
        with pytest.raises(
            Unreachable, match=r"http://127.0.0.1:\d+: no answer .* is this the context you mean"
        ):
            client.get("digits")


def test_what_is_no_api_server_is_said(client, fake):
    fake.refusals.append(("GET", JOB, 200, b"<html>"))
    with pytest.raises(ClusterError, match="is no Kubernetes API server"):
        client.get("digits")


def test_metrics_are_served_by_pods_that_run(client, fake):
    fake.put(JOB, job_object("Running"))
    for role, rank, state in (
        ("aggregator", 0, "running"),
        ("worker", 0, "running"),
        ("worker", 1, "waiting"),
    ):
        pod = pod_object(role, rank, state=state)
        pod["status"]["podIP"] = f"10.0.0.{rank}"
        fake.put(pod_path(role, rank), pod)
    aggregator, worker = client.endpoints("digits")
    assert (aggregator.address, aggregator.port, aggregator.labels) == (
        "10.0.0.0",
        8080,
        {"role": "aggregator"},
    )
    assert (worker.port, worker.labels) == (8081, {"role": "worker", "rank": "0", "attempt": "1"})
