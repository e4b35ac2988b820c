"""Bad manifests: refused by the API server in the rules' words, or by the operator with a reason."""

import pytest

from support.api import ApiError, Object
from support.job import Job
from support.manifest import job_manifest, merged, pod_template, worker_template
from support.space import Space
from support.waiting import wait

REFUSED = [
    ("a name too long", {"metadata": {"name": "n" * 46}}, "45"),
    ("no workers", {"spec": {"aggregation": {"workers": 0}}}, "workers"),
    ("two ends", {"spec": {"training": {"epochs": 3}}}, "exactly one"),
    ("backups in Sync", {"spec": {"aggregation": {"mode": "Sync", "backupWorkers": 1}}}, "backup"),
    ("two doors", {"spec": {"program": {"script": "train.py"}}}, "exactly one"),
    ("an unknown mode", {"spec": {"aggregation": {"mode": "Sometimes"}}}, "Sometimes"),
]


@pytest.mark.parametrize(("change", "said"), [case[1:] for case in REFUSED], ids=[c[0] for c in REFUSED])
def test_the_api_server_refuses_in_the_rules_words(space: Space, change: Object, said: str) -> None:
    with pytest.raises(ApiError) as caught:
        space.api.create("job", space.name, merged(job_manifest("bad"), change), dry_run=True)
    assert caught.value.code == 422
    assert said in caught.value.message


def test_what_must_not_change_is_refused_on_a_running_job(space: Space) -> None:
    job = space.start("fixed", runPolicy={"suspend": True})
    with pytest.raises(ApiError) as caught:
        job.patch(training={"seed": 7})
    assert caught.value.code == 422
    assert "immutable" in caught.value.message or "cannot" in caught.value.message


def test_a_spec_that_only_the_operator_can_judge_gets_no_pods_and_heals(space: Space) -> None:
    wire = {"wire": {"transport": "Ipc"}}
    job = space.start("misguided", aggregation=wire)
    job.wait(lambda: job.condition("Accepted")["status"] == "False")
    assert "Ipc" in job.condition("Accepted")["message"]
    assert job.pods() == []
    _edit(job, {"spec": {"aggregation": {"wire": {"transport": "Auto"}}}})
    job.wait_until_succeeded()
    assert job.holds("Accepted")


def test_a_broken_pod_template_shows_the_apis_own_words(space: Space) -> None:
    broken = worker_template({"priorityClassName": "no-such-class"})
    job = space.start("broken", worker={"template": broken})
    job.wait(lambda: "no-such-class" in _said(job))
    assert not job.pods("worker")
    assert job.state == "Pending"


@pytest.mark.full
def test_a_template_that_its_namespace_forbids_shows_why_and_heals(space: Space) -> None:
    template = pod_template("aggregator", {"hostNetwork": True})
    job = space.start("forbidden", aggregator={"template": template})
    job.wait(lambda: "hostNetwork" in _said(job) or "host namespaces" in _said(job))
    job.patch(runPolicy={"suspend": True})
    wait(lambda: job.state == "Suspended", explain=job.explain)
    job.patch(aggregator={"template": {"spec": {"hostNetwork": None}}})
    job.patch(runPolicy={"suspend": False})
    job.wait_until_succeeded()


@pytest.mark.full
def test_a_program_that_does_not_exist_is_named(space: Space) -> None:
    job = space.start("nobody", program={"entrypoint": "nothing:Here"})
    condition = job.wait_until_failed()
    assert condition["reason"] == "ProgramRefused"
    assert "nothing" in condition["message"]


def _edit(job: Job, change: Object) -> None:
    job.api.patch("job", job.namespace, job.name, change)


def _said(job: Job) -> str:
    return " ".join(f"{c['reason']} {c['message']}" for c in job.status.get("conditions", []))
