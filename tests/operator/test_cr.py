"""A custom resource -> the job it asks for, or every reason why not; and the images it runs with."""

import pytest
from rendering import resource

from backupsync.lifecycle.types import JobStatus
from backupsync_operator.cr import BadSpec, frozen, job_of
from backupsync_operator.render import Images


def problems(laid_over: dict[str, object]) -> list[str]:
    return refused(resource(laid_over))


def refused(made: dict[str, object]) -> list[str]:
    with pytest.raises(BadSpec) as caught:
        job_of(made)
    return caught.value.problems


def test_what_the_server_added_is_left_aside():
    made = resource(
        metadata={"managedFields": [{"manager": "kubectl"}], "finalizers": ["x"], "labels": {"a": "b"}}
    )
    made["status"] = {"memory": {}}
    job = job_of(made)
    assert (job.metadata.name, job.metadata.namespace, job.metadata.labels) == ("digits", "lab", {"a": "b"})


def test_numbers_are_read_as_the_api_server_writes_them():
    training = {"iterations": 1, "batchSize": 8, "optimizer": {"lr": 1, "weight_decay": 1e-05}}
    job = job_of(resource({"training": training}))
    assert job.spec.training.optimizer.lr == 1.0
    assert job.spec.training.optimizer.keywords == {"weight_decay": 1e-05}


def test_every_problem_is_told_at_once():
    said = problems({"aggregation": {"workers": "4", "backupWorkers": -1}, "checkpoint": {"every": 1}})
    assert len(said) == 3
    assert any("spec.aggregation.workers" in line for line in said)
    assert any("everyIterations" in line for line in said)


@pytest.mark.parametrize("spec", [None, [], "x", {}])
def test_a_spec_of_no_shape_is_told(spec):
    assert refused({**resource(), "spec": spec})


def test_what_only_a_cluster_refuses():
    assert "Ipc" in problems({"aggregation": {"workers": 1, "wire": {"transport": "Ipc"}}})[0]
    assert "wire.port = 8080" in problems({"aggregation": {"workers": 1, "wire": {"port": 8080}}})[0]
    assert "/data" in problems({"checkpoint": {"path": "/data"}})[0]


@pytest.mark.parametrize(
    ("template", "field"),
    [
        ({"spec": []}, "spec.worker.template"),
        ({"spec": {"containers": {"name": "worker"}}}, "template.spec.containers"),
        ({"spec": {"containers": ["worker"]}}, "template.spec.containers[0]"),
        ({"spec": {"containers": [{"image": "x"}]}}, "template.spec.containers[0].name"),
        ({"spec": {"containers": [{"name": "worker", "env": {"A": "b"}}]}}, "containers[0].env"),
        ({"spec": {"containers": [{"name": "worker", "env": ["A=b"]}]}}, "containers[0].env[0]"),
        ({"spec": {"containers": [{"name": "worker", "image": 3}]}}, "containers[0].image"),
        ({"spec": {"containers": [{"name": "worker", "resources": {"limits": "2"}}]}}, "resources.limits"),
        ({"spec": {"volumes": "x"}}, "template.spec.volumes"),
        ({"spec": {"securityContext": []}}, "template.spec.securityContext"),
        ({"metadata": {"labels": {"a": 1}}}, "template.metadata.labels.a"),
        ({"metadata": {"annotations": []}}, "template.metadata.annotations"),
    ],
)
def test_a_template_that_nothing_can_be_put_around_is_refused_by_its_field(template, field):
    said = problems({"worker": {"template": template}})
    assert [line for line in said if field in line], said


@pytest.mark.parametrize(
    "template", [{}, {"spec": {}}, {"metadata": {}}, {"spec": {"containers": None, "volumes": None}}]
)
def test_an_empty_template_is_no_template(template):
    assert job_of(resource({"worker": {"template": template}})).spec.worker.template == template


DEFAULTS = Images(worker="w:2", aggregator="a:2")
RECORDED = {"worker": "w:1", "aggregator": "a:1"}
RUNNING = JobStatus(phase="Running", start_time=1.0)


def test_a_new_job_takes_the_operators_images():
    assert frozen(job_of(resource()), JobStatus(), None, DEFAULTS) == DEFAULTS


def test_an_upgraded_operator_does_not_mix_versions_in_a_running_job():
    assert frozen(job_of(resource()), RUNNING, RECORDED, DEFAULTS) == Images(**RECORDED)


def test_a_job_that_resumes_goes_on_with_the_operators_images_of_now():
    suspended = JobStatus(phase="Suspended", start_time=1.0)
    assert frozen(job_of(resource()), suspended, RECORDED, DEFAULTS) == DEFAULTS


def test_an_image_of_the_template_is_the_users_to_say():
    mine = {"template": {"spec": {"containers": [{"name": "worker", "image": "mine:3"}]}}}
    job = job_of(resource({"worker": mine}))
    assert frozen(job, RUNNING, RECORDED, DEFAULTS) == Images(worker="mine:3", aggregator="a:1")
