"""The CRD on a real API server: it refuses in the model's own words, takes the good twin, and teaches.

The jobs here are managed by another controller, so that an operator that is installed gives them no pods. It
does say so in their status: what a test writes there is written again until it is seen.
"""

import json
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import yaml

from backupsync.kube import names
from backupsync.spec import ManifestError, parse_manifest
from support.api import Api, ApiError, Object, path_of
from support.manifest import merged
from support.waiting import wait

CRD = f"{names.PLURAL}.{names.GROUP}"
ELSEWHERE = "example.com/nobody"
SMALL: Object = {
    "apiVersion": "backupsync.dev/v1alpha1",
    "kind": "BackupSyncJob",
    "metadata": {"name": "small"},
    "spec": {
        "program": {"entrypoint": "digits:Digits", "args": {"hidden": 64}},
        "aggregation": {"workers": 4, "backupWorkers": 2},
        "training": {"iterations": 400, "batchSize": 32, "optimizer": {"lr": 0.1, "momentum": 0.9}},
        "worker": {"template": {"spec": {"containers": [{"name": "worker", "new": {"field": 1}}]}}},
        "runPolicy": {"managedBy": ELSEWHERE},
    },
}


class Twins(NamedTuple):
    """A change that is refused, and its good twin, which is taken."""

    bad: Object
    good: Object


CROSS_FIELD = {
    "two doors": Twins(
        {"program": {"script": "train.py"}}, {"program": {"entrypoint": None, "script": "train.py"}}
    ),
    "no door": Twins({"program": {"entrypoint": None}}, {}),
    "too many workers": Twins(
        {"aggregation": {"workers": 900, "backupWorkers": 200}},
        {"aggregation": {"workers": 900, "backupWorkers": 100}},
    ),
    "backups in Sync": Twins(
        {"aggregation": {"mode": "Sync"}}, {"aggregation": {"mode": "Sync", "backupWorkers": 0}}
    ),
    "backups in Async": Twins(
        {"aggregation": {"mode": "Async"}}, {"aggregation": {"mode": "Async", "backupWorkers": 0}}
    ),
    "staleness in BackupSync": Twins(
        {"aggregation": {"maxStaleness": 3}},
        {"aggregation": {"mode": "Async", "backupWorkers": 0, "maxStaleness": 3}},
    ),
    "minimum above N": Twins(
        {"aggregation": {"belowQuorum": {"policy": "Shrink", "minimum": 5}}},
        {"aggregation": {"belowQuorum": {"policy": "Shrink", "minimum": 4}}},
    ),
    "timeout below two heartbeats": Twins(
        {"aggregation": {"wire": {"timeoutSeconds": 1.5}}}, {"aggregation": {"wire": {"timeoutSeconds": 2}}}
    ),
    "stall below timeout": Twins(
        {"aggregation": {"wire": {"stallSeconds": 5}}}, {"aggregation": {"wire": {"stallSeconds": 10}}}
    ),
    "no end": Twins({"training": {"iterations": None}}, {}),
    "iterations and epochs": Twins(
        {"training": {"epochs": 3}}, {"training": {"iterations": None, "epochs": 3}}
    ),
    "iterations and examples": Twins(
        {"training": {"examples": 9}}, {"training": {"iterations": None, "examples": 9}}
    ),
    "examples and epochs": Twins({"training": {"iterations": None, "examples": 9, "epochs": 2}}, {}),
    "three ends": Twins({"training": {"examples": 9, "epochs": 2}}, {}),
    "accumulate that does not divide": Twins(
        {"training": {"accumulate": 5}}, {"training": {"accumulate": 8}}
    ),
}

FIXED = {
    "program": {"program": {"args": {"hidden": 65}}},
    "training": {"training": {"optimizer": {"momentum": 0.8}}},
    "checkpoint": {"checkpoint": {"volumeClaimTemplate": {"spec": {"storageClassName": "fast"}}}},
    "security": {"security": {"encryption": "Curve"}},
    "aggregation.mode": {"aggregation": {"mode": "Sync", "backupWorkers": 0}},
    "aggregation.belowQuorum": {"aggregation": {"belowQuorum": {"policy": "Fail"}}},
    "aggregation.droppedBatches": {"aggregation": {"droppedBatches": "Requeue"}},
    "aggregation.maxRequeues": {"aggregation": {"maxRequeues": 4}},
    "aggregation.abandonLate": {"aggregation": {"abandonLate": False}},
    "aggregation.nonFiniteLimit": {"aggregation": {"nonFiniteLimit": 3}},
    "aggregation.wire": {"aggregation": {"wire": {"dtype": "bfloat16"}}},
    "aggregation.maxStaleness": {"aggregation": {"mode": "Async", "backupWorkers": 0, "maxStaleness": 1}},
    "runPolicy.managedBy": {"runPolicy": {"managedBy": None}},
}
"""One change of each section that a job keeps for life."""

MOVABLE = [
    {"aggregation": {"workers": 6}},
    {"aggregation": {"backupWorkers": 0}},
    {"stragglers": {"mode": "Observe"}},
    {"runPolicy": {"suspend": True}},
    {"runPolicy": {"backoffLimit": 0, "activeDeadlineSeconds": 9, "ttlSecondsAfterFinished": 0}},
    {"runPolicy": {"cleanPodPolicy": "All", "nodeLostGraceSeconds": 5, "pendingDeadlineSeconds": 5}},
]


@pytest.fixture(scope="module")
def namespace(api: Api) -> Iterator[str]:
    """A namespace in which nothing runs."""
    name = f"e2e-crd-{uuid.uuid4().hex[:6]}"
    api.create("namespace", None, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    api.delete("namespace", None, name)


@pytest.fixture
def job(api: Api, namespace: str) -> Iterator[str]:
    """A job that exists, and its name."""
    name = f"job-{uuid.uuid4().hex[:6]}"
    api.create("job", namespace, merged(SMALL, {"metadata": {"name": name}}))
    yield name
    api.delete("job", namespace, name)


def refusal(api: Api, namespace: str, changes: Object) -> str:
    """What the API server says to the small job, changed."""
    with pytest.raises(ApiError) as caught:
        api.create("job", namespace, merged(SMALL, changes), dry_run=True)
    assert caught.value.code == 422
    return caught.value.message


def patched(api: Api, namespace: str, name: str, spec: Object) -> Object:
    """The job as a change of its spec would leave it; nothing is stored."""
    path = path_of("job", namespace, name) + "?dryRun=All"
    answer: Object = json.loads(api.raw("PATCH", path, {"spec": spec}, "application/merge-patch+json"))
    return answer


def problems(manifest: Object) -> list[str]:
    """What the model says is wrong with a manifest."""
    try:
        parse_manifest(yaml.safe_dump(manifest))
    except ManifestError as error:
        return [problem.remedy for problem in error.problems]
    return []


@pytest.mark.parametrize("case", CROSS_FIELD)
def test_a_rule_over_several_fields_speaks_the_models_words(api: Api, namespace: str, case: str) -> None:
    bad, good = ({"spec": spec} for spec in CROSS_FIELD[case])
    (said,) = problems(merged(SMALL, bad))
    assert said in refusal(api, namespace, bad)
    assert problems(merged(SMALL, good)) == []
    api.create("job", namespace, merged(SMALL, good), dry_run=True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a" * 46, "metadata.name must have at most 45 characters"),
        ("a.b", "metadata.name must consist of lower-case letters, digits and dashes"),
    ],
)
def test_a_name_that_pods_cannot_bear_is_refused(api: Api, namespace: str, name: str, said: str) -> None:
    assert said in refusal(api, namespace, {"metadata": {"name": name}})


def test_the_longest_name_is_taken(api: Api, namespace: str) -> None:
    api.create("job", namespace, merged(SMALL, {"metadata": {"name": "a" * 45}}), dry_run=True)


@pytest.mark.parametrize("path", FIXED)
def test_what_a_job_keeps_for_life_cannot_be_changed(api: Api, namespace: str, job: str, path: str) -> None:
    with pytest.raises(ApiError) as caught:
        patched(api, namespace, job, FIXED[path])
    assert caught.value.code == 422
    assert f"spec.{path}: " in caught.value.message
    assert f"{path} cannot be changed once the job exists" in caught.value.message


def test_everything_that_is_fixed_was_tried(api: Api) -> None:
    found = yaml.safe_load(api.kubectl("get", "crd", CRD, "-o", "yaml"))
    (version,) = found["spec"]["versions"]
    rules = version["schema"]["openAPIV3Schema"]["x-kubernetes-validations"]
    paths = {rule["fieldPath"].removeprefix(".spec.") for rule in rules if "oldSelf" in rule["rule"]}
    assert paths == FIXED.keys() | {"worker", "aggregator"}


@pytest.mark.parametrize("spec", MOVABLE, ids=str)
def test_what_may_change_is_taken(api: Api, namespace: str, job: str, spec: Object) -> None:
    patched(api, namespace, job, spec)


@pytest.mark.parametrize("role", ["worker", "aggregator"])
def test_templates_change_only_while_the_job_is_suspended(
    api: Api, namespace: str, job: str, role: str
) -> None:
    change = {role: {"template": {"spec": {"priorityClassName": "high"}}}}
    with pytest.raises(ApiError) as caught:
        patched(api, namespace, job, change)
    assert f"{role}.template changes only while the job is suspended" in caught.value.message
    patched(api, namespace, job, {**change, "runPolicy": {"suspend": True}})
    api.patch("job", namespace, job, {"spec": {"runPolicy": {"suspend": True}}})
    patched(api, namespace, job, change)
    patched(api, namespace, job, {**change, "runPolicy": {"suspend": False}})


@pytest.mark.parametrize("path", FIXED)
def test_a_job_that_was_never_accepted_may_be_mended(api: Api, namespace: str, job: str, path: str) -> None:
    verdict = {
        "type": "Accepted",
        "status": "False",
        "reason": "BadSpec",
        "message": "pods share no file system",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }

    def mended() -> bool:
        api.patch("job", namespace, job, {"status": {"conditions": [verdict]}}, "status")
        try:
            return bool(patched(api, namespace, job, FIXED[path]))
        except ApiError:
            return False

    wait(mended)
    began = {"startTime": "2026-01-01T00:00:00Z"}
    api.patch("job", namespace, job, {"status": began}, "status")
    with pytest.raises(ApiError):
        patched(api, namespace, job, FIXED[path])


def test_what_the_server_fills_in_is_what_the_model_means(api: Api, namespace: str) -> None:
    stored = api.create("job", namespace, SMALL, dry_run=True)
    assert parse_manifest(json.dumps(stored)).spec == parse_manifest(yaml.safe_dump(SMALL)).spec
    assert stored["spec"]["training"]["optimizer"] == {
        "lr": 0.1,
        "momentum": 0.9,
        "name": "SGD",
        "groups": [],
    }
    (container,) = stored["spec"]["worker"]["template"]["spec"]["containers"]
    assert container == {"name": "worker", "new": {"field": 1}}


def test_an_unknown_field_is_named(api: Api, namespace: str) -> None:
    text = json.dumps(merged(SMALL, {"spec": {"aggregation": {"backupworkers": 2}}}))
    said = api.kubectl("-n", namespace, "apply", "--dry-run=server", "-f", "-", text=text, check=False)
    assert 'unknown field "spec.aggregation.backupworkers"' in said


def test_a_template_without_its_spec_is_named(api: Api, namespace: str) -> None:
    text = json.dumps(merged(SMALL, {"spec": {"worker": {"template": {"containers": []}}}}))
    said = api.kubectl("-n", namespace, "apply", "--dry-run=server", "-f", "-", text=text, check=False)
    assert 'unknown field "spec.worker.template.containers"' in said


def test_explain_teaches(api: Api) -> None:
    said = " ".join(api.kubectl("explain", "bsj.spec.aggregation.backupWorkers").split())
    assert "b: workers beyond N, whose gradients are dropped when they come late." in said
    assert "N: gradients averaged in every iteration." in api.kubectl("explain", "bsj.spec.aggregation")


def test_scale_sets_n_and_is_judged_like_any_change(api: Api, namespace: str, job: str) -> None:
    api.kubectl("-n", namespace, "scale", "bsj", job, "--replicas", "7")
    assert api.get("job", namespace, job)["spec"]["aggregation"]["workers"] == 7
    said = api.kubectl("-n", namespace, "scale", "bsj", job, "--replicas", "0", check=False)
    assert "spec.aggregation.workers" in said


def test_scale_shows_the_n_in_effect(api: Api, namespace: str, job: str) -> None:
    shown = {"replicas": 5, "selector": "backupsync.dev/job=a"}

    def scale() -> Object:
        api.patch("job", namespace, job, {"status": shown}, "status")
        answer: Object = json.loads(api.raw("GET", path_of("job", namespace, job, "scale")))
        return answer

    wait(lambda: scale()["status"] == shown, explain=lambda: str(scale()))
    assert scale()["spec"]["replicas"] == 4


def test_get_shows_where_a_job_is(api: Api, namespace: str, job: str) -> None:
    ready = {"type": "Ready", "status": "True", "reason": "Training", "message": "6 of 6"}
    status: dict[str, Any] = {
        "state": "Running",
        "conditions": [{**ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        "workers": {"ready": "6/6"},
        "progress": {"iteration": 120, "rate": "8.9/s"},
        "slow": 0,
    }

    def row() -> list[str]:
        api.patch("job", namespace, job, {"status": status}, "status")
        return api.kubectl("-n", namespace, "get", "bsj", job, "--no-headers").split()

    wait(lambda: row()[1:7] == ["Running", "True", "6/6", "120", "8.9/s", "0"], explain=lambda: str(row()))
    assert job in api.kubectl("-n", namespace, "get", "all")


def test_a_status_keeps_the_operators_memory_whole(api: Api, namespace: str, job: str) -> None:
    memory = {"members": [{"rank": 0, "attempt": 1}], "anything": {"at": ["all", 1, 2.5, None]}}
    stored = api.patch("job", namespace, job, {"status": {"memory": memory}}, "status")
    assert stored["status"]["memory"] == memory
