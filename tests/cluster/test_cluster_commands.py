"""The commands against a small API server: what they print, and how they exit."""

import json

import pytest
from cluster_objects import JOB, job_object, pod_object, pod_path
from fake_kubernetes import status
from typer.testing import CliRunner

from backupsync.cli import follow
from backupsync.cli.app import app
from backupsync.cli.follow import follow_job
from backupsync.cluster import Unreachable

MANIFEST = json.dumps(
    {key: value for key, value in job_object().items() if key != "metadata"}
    | {"metadata": {"name": "digits"}}
)
EVENTS = "/api/v1/namespaces/team/events"


@pytest.fixture
def call(kubeconfig, tmp_path, monkeypatch):
    monkeypatch.setenv("BACKUPSYNC_TARGET", "cluster")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(MANIFEST)
    (tmp_path / "digits.py").write_text("class Digits: ...\n")
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(follow, "_EVERY_SECONDS", 0.01)


def failed(**fields):
    told = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "rank 1"}
    return job_object("Failed", conditions=[told], **fields)


def event(name, reason, **fields):
    about = {"kind": "BackupSyncJob" if name == "digits" else "Pod", "name": name}
    when = {"lastTimestamp": "2026-01-02T03:05:00Z", "message": "said"}
    return {"involvedObject": about, "reason": reason} | when | fields


def test_submitting_says_where_the_job_is_and_how_to_go_on(call, fake):
    answer = call("submit", "job.yaml")
    assert answer.exit_code == 0, answer.stderr
    where, note = answer.stderr.splitlines()
    assert where == (
        "job digits: submitted to namespace team; program: digits.py (18 bytes) in ConfigMap digits-program"
    )
    assert note.startswith("note: checkpoints go to an emptyDir, which ends with the aggregator's pod")
    assert answer.stdout == "job digits: follow it with `backupsync logs digits --all -f -n team`\n"
    again = call("submit", "job.yaml")
    assert again.exit_code == 2
    assert "exists already" in again.stderr


def test_what_submit_prints_as_json_is_the_job(call, fake):
    told = json.loads(call("submit", "job.yaml", "-o", "json").stdout)
    assert (told["name"], told["state"], told["aggregation"]["backupWorkers"]) == ("digits", "Pending", 1)
    contradiction = call("submit", "job.yaml", "--program", "digits.py", "--no-program")
    assert contradiction.exit_code == 2
    assert "exclude each other" in contradiction.stderr


def test_following_ends_with_the_job_and_tells_each_event_once(client, fake, capfd):
    looked = []

    def advance(request):
        looked.append(request)
        if len(looked) == 3:
            fake.put(JOB, failed())

    fake.put(JOB, job_object("Running"))
    fake.put(f"{EVENTS}/a", event("digits", "Running"))
    fake.put(f"{EVENTS}/b", event("digits-worker-0-1", "BackOff", type="Warning"))
    fake.put(f"{EVENTS}/c", event("digits-worker-0-1", "Pulled"))
    fake.put(
        f"{EVENTS}/d", event("digits-worker-0-1", "Unhealthy", message="Startup probe failed", type="Warning")
    )
    fake.refusals.append(("GET", JOB, 503, status(503, "ServiceUnavailable", "starting")))
    get = client.get
    client.get = lambda name: (advance(name), get(name))[1]
    assert follow_job(client, "digits").state == "Failed"
    said = capfd.readouterr().err
    assert said.count("Running: said") == 1
    assert said.count("warning: BackOff: said  (pod/digits-worker-0-1)") == 1
    assert "Pulled" not in said
    assert "Startup probe" not in said
    assert "digits: Failed" in said


def test_a_person_who_may_not_read_events_follows_without(client, fake, capfd):
    fake.put(JOB, job_object("Succeeded"))
    fake.refusals.append(("GET", EVENTS, 403, status(403, "Forbidden", "no")))
    assert follow_job(client, "digits", quiet=True).state == "Succeeded"
    assert capfd.readouterr().err == ""


def test_an_api_server_that_stays_away_ends_the_following(client, fake, monkeypatch):
    monkeypatch.setattr(follow, "_PATIENCE_SECONDS", -1.0)
    fake.refusals.append(("GET", JOB, 503, status(503, "ServiceUnavailable", "starting")))
    with pytest.raises(Unreachable):
        follow_job(client, "digits")


def test_a_followed_job_that_fails_is_exit_code_1(call, fake):
    fake.put(JOB, failed())
    answer = call("status", "digits", "--follow")
    assert answer.exit_code == 1
    assert "Failed=True" in answer.stdout
    fake.put(JOB, job_object("Succeeded"))
    assert call("status", "digits", "-f").exit_code == 0
    local = call("status", "digits", "-f", "--local")
    assert local.exit_code == 2
    assert "is for clusters" in local.stderr


def test_waiting_exits_by_what_came(call, fake):
    fake.put(JOB, job_object("Succeeded"))
    assert call("wait", "digits").exit_code == 0
    assert json.loads(call("wait", "digits", "-o", "json").stdout)["state"] == "Succeeded"
    assert call("wait", "digits", "--for", "FAILED").exit_code == 1
    fake.put(JOB, failed())
    answer = call("wait", "digits")
    assert answer.exit_code == 1
    assert "job digits: Failed, so it will not be succeeded: BackoffLimitExceeded: rank 1" in answer.stderr
    fake.put(JOB, job_object("Running"))
    assert call("wait", "digits", "--timeout", "0").exit_code == 124
    answer = call("wait", "digits", "--for", "lunch")
    assert answer.exit_code == 2
    assert "--for 'lunch': is no state to wait for; there are: accepted, running" in answer.stderr


def test_jobs_are_listed_or_said_to_be_none(call, fake):
    answer = call("list")
    assert (answer.exit_code, answer.stdout, answer.stderr) == (0, "", "no jobs in namespace team\n")
    assert call("list", "-A").stderr == "no jobs in any namespace\n"
    fake.put(JOB, job_object("Running"))
    assert call("list").stdout.splitlines()[1].split()[:2] == ["digits", "Running"]
    assert [job["name"] for job in json.loads(call("list", "-o", "json").stdout)] == ["digits"]
    assert "local jobs have no namespace" in call("list", "--local", "-A").stderr


def test_events_and_reasons_are_lines_or_json(call, fake):
    fake.put(JOB, job_object("Running"))
    fake.put(f"{EVENTS}/a", event("digits", "Running"))
    assert call("events", "digits").stdout.endswith("Running: said\n")
    [told] = json.loads(call("events", "digits", "-o", "json").stdout)
    assert (told["reason"], told["object"], told["time"]) == (
        "Running",
        "BackupSyncJob/digits",
        "2026-01-02T03:05:00Z",
    )
    assert call("explain", "digits").stdout == "state Running\n"
    told = json.loads(call("explain", "digits", "-o", "json").stdout)
    assert told == {"job": "digits", "reasons": ["state Running"]}


def test_logs_of_everyone_say_whose_each_line_is(call, fake):
    fake.put(JOB, job_object("Running"))
    fake.put(pod_path(), pod_object())
    fake.put(pod_path("aggregator"), pod_object("aggregator"))
    fake.write(pod_path(), "2026-01-02T03:04:05.000000002Z", "second")
    fake.write(pod_path("aggregator"), "2026-01-02T03:04:05.000000001Z", "first")
    assert call("logs", "digits").stdout == "first\n"
    assert call("logs", "digits", "--rank", "0").stdout == "second\n"
    assert call("logs", "digits", "--all").stdout.splitlines() == [
        "aggregator-1   | first",
        "worker-0-1     | second",
    ]
    line = json.loads(call("logs", "digits", "--rank", "0", "-o", "json").stdout)
    assert (line["pod"], line["text"], line["attempt"]) == ("digits-worker-0-1", "second", 1)


def test_a_job_is_changed_and_the_answer_says_how_to_go_on(call, fake):
    fake.put(JOB, job_object("Running"))
    assert call("scale", "digits", "--workers", "3").stdout == "job digits: N = 3, b = 1\n"
    said = call("suspend", "digits", "-n", "team").stdout
    assert said == "job digits: suspending; go on with `backupsync resume digits -n team`\n"
    assert json.loads(call("resume", "digits", "-o", "json").stdout)["suspend"] is False
    fake.put("/api/v1/namespaces/team/persistentvolumeclaims/digits-checkpoint", {})
    said = call("delete", "digits").stdout
    assert said == "job digits: deleted; its checkpoints stay in PersistentVolumeClaim digits-checkpoint\n"
    assert call("delete", "digits").exit_code == 2


def test_metrics_of_running_pods_are_targets(call, fake):
    fake.put(JOB, job_object("Running"))
    assert "no pod of it runs" in call("metrics", "digits").stderr
    pod = pod_object()
    pod["status"]["podIP"] = "fd00::7"
    fake.put(pod_path(), pod)
    assert call("metrics", "digits").stdout == "http://[fd00::7]:8081/metrics  worker 0\n"
    [target] = json.loads(call("metrics", "digits", "-o", "json").stdout)
    assert target["labels"] == {"job": "digits", "role": "worker", "rank": "0", "attempt": "1"}


def test_a_model_in_an_empty_dir_of_a_job_that_is_over_is_said_to_be_gone(call, fake):
    fake.put(JOB, job_object("Succeeded", images={"aggregator": "a:1"}))
    answer = call("get-model", "digits")
    assert answer.exit_code == 2
    assert "lay in an emptyDir, which went with the aggregator's pod: the model is gone" in answer.stderr
    gone = call("get-model", "other")
    assert "not found, and it left no PersistentVolumeClaim other-checkpoint" in gone.stderr
    fake.put("/api/v1/namespaces/team/persistentvolumeclaims/other-checkpoint", {})
    assert "--image IMAGE" in call("get-model", "other").stderr
    assert fake.asked("POST") == [], "no pod was made"


def test_a_reader_pod_that_ends_at_once_is_said_and_deleted(call, fake):
    claim = {"volumeClaimTemplate": {"spec": {}}}
    job = job_object("Succeeded", images={"aggregator": "a:1"})
    fake.put(JOB, job | {"spec": job["spec"] | {"checkpoint": claim}})
    put = fake.put

    def ended(path, document):
        state = {"terminated": {"reason": "StartError", "message": "no python3"}}
        told = {"phase": "Failed", "containerStatuses": [{"name": "reader", "state": state}]}
        return put(path, document | {"status": told} if "get-model" in path else document)

    fake.put = ended
    answer = call("get-model", "digits")
    assert answer.exit_code == 2
    assert "ended before it was read: StartError no python3" in answer.stderr
    assert [path for path in fake.objects if "get-model" in path] == []
