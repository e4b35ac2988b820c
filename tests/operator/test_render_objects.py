"""Service, Secret, claim and budget; and where the checkpoints lie."""

import base64
from typing import Any

import pytest
from rendering import container, context_of, environment, render

from backupsync.kube.checkpoints import path_problem, place_of
from backupsync.launch import AggregatorLaunch
from backupsync.lifecycle.types import ReplicaId
from backupsync_operator.render import budget, claim, secret, service
from backupsync_operator.render.objects import service_selector

AGGREGATOR = ReplicaId("aggregator", 0, 1)


def test_the_service_finds_the_aggregator_in_office_alone_and_before_it_is_ready():
    made = service(context_of(), 3)
    assert made["metadata"]["name"] == "digits-aggregator"
    assert made["spec"]["clusterIP"] == "None"
    assert made["spec"]["publishNotReadyAddresses"] is True
    labels = render(ReplicaId("aggregator", 0, 3))["metadata"]["labels"]
    assert made["spec"]["selector"].items() <= labels.items()
    for other in (ReplicaId("aggregator", 0, 2), ReplicaId("worker", 0, 3)):
        assert not made["spec"]["selector"].items() <= render(other)["metadata"]["labels"].items()


def test_a_new_epoch_changes_the_selector_alone():
    one, two = service(context_of(), 1), service(context_of(), 2)
    assert one["spec"]["selector"] != two["spec"]["selector"] == service_selector(context_of(), 2)
    one["spec"]["selector"] = two["spec"]["selector"] = {}
    assert one == two


def test_the_secret_holds_the_key_and_never_changes():
    made = secret(context_of(), "ab" * 32)
    assert base64.b64decode(made["data"]["key"]) == b"ab" * 32
    assert made["immutable"] is True
    volume = next(v for v in render(AGGREGATOR)["spec"]["volumes"] if "secret" in v)
    assert volume["secret"] == {"secretName": made["metadata"]["name"], "defaultMode": 0o440}


def test_the_budget_leaves_n_workers_and_is_for_backups_only():
    made = budget(context_of())
    assert made is not None
    assert made["spec"]["minAvailable"] == 2
    selector = made["spec"]["selector"]["matchLabels"]
    assert selector.items() <= render(ReplicaId("worker", 0, 1))["metadata"]["labels"].items()
    assert not selector.items() <= render(AGGREGATOR)["metadata"]["labels"].items()
    assert budget(context_of({"aggregation": {"workers": 2}})) is None


CLAIM = {"spec": {"resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "fast"}}


def test_a_claim_is_made_as_asked_and_kept_when_the_job_is_deleted():
    template = {**CLAIM, "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}}
    made = claim(context_of({"checkpoint": {"volumeClaimTemplate": template}}))
    assert made is not None
    assert made["metadata"]["name"] == "digits-checkpoint"
    assert "ownerReferences" not in made["metadata"]
    assert made["metadata"]["labels"]["a"] == "b"
    assert made["metadata"]["annotations"] == {"c": "d"}
    assert made["spec"] == {"accessModes": ["ReadWriteOnce"], **CLAIM["spec"]}


def test_a_claim_that_goes_with_its_job_has_an_owner():
    made = claim(context_of({"checkpoint": {"volumeClaimTemplate": CLAIM, "retention": "Delete"}}))
    assert made is not None
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u-1"


def test_no_claim_where_none_is_asked_for():
    assert claim(context_of()) is None
    assert claim(context_of({"checkpoint": {"path": "out"}})) is None


def mounting(path: str, volume: dict[str, Any]) -> dict[str, Any]:
    mine = {"name": "aggregator", "volumeMounts": [{"name": "nfs", "mountPath": path}]}
    return {"template": {"spec": {"containers": [mine], "volumes": [{"name": "nfs", **volume}]}}}


NFS = {"nfs": {"server": "s", "path": "/"}}
SCRATCH = "/var/run/backupsync/checkpoint"


@pytest.mark.parametrize(
    ("spec", "kind", "directory", "durable"),
    [
        ({}, "Scratch", SCRATCH, False),
        ({"checkpoint": {"path": "out/digits"}}, "Scratch", f"{SCRATCH}/out/digits", False),
        ({"checkpoint": {"volumeClaimTemplate": CLAIM}}, "Claim", f"{SCRATCH}/u-1", True),
        ({"checkpoint": {"volumeClaimTemplate": CLAIM, "path": "a"}}, "Claim", f"{SCRATCH}/a/u-1", True),
        ({"checkpoint": {"path": "/mnt/x"}, "aggregator": mounting("/mnt", NFS)}, "Template", "/mnt/x", True),
        ({"checkpoint": {"path": "/mnt"}, "aggregator": mounting("/mnt/", NFS)}, "Template", "/mnt", True),
        (
            {"checkpoint": {"path": "/m/x"}, "aggregator": mounting("/m", {"emptyDir": {}})},
            "Template",
            "/m/x",
            False,
        ),
        ({"aggregator": mounting(SCRATCH, NFS)}, "Template", SCRATCH, True),
        (
            {"checkpoint": {"path": "a"}, "aggregator": mounting(SCRATCH, NFS)},
            "Template",
            f"{SCRATCH}/a",
            True,
        ),
    ],
)
def test_where_checkpoints_lie_and_whether_they_last(spec, kind, directory, durable):
    context = context_of(spec)
    place = place_of(context.job, "u-1")
    assert (place.kind, place.directory, place.durable) == (kind, directory, durable)
    assert place.message
    launch = environment(render(AGGREGATOR, spec), AggregatorLaunch)
    assert launch.checkpoint_directory == directory
    traces = directory if durable else "/var/run/backupsync/scratch"
    assert launch.trace_file == f"{traces}/trace-epoch-{AGGREGATOR.attempt:08d}.jsonl"
    mounts = {
        m["mountPath"].rstrip("/"): m["name"]
        for m in container(render(AGGREGATOR, spec), "aggregator")["volumeMounts"]
    }
    assert any(directory == at or directory.startswith(f"{at}/") for at in mounts)


@pytest.mark.parametrize("path", ["/mnt2/x", "/elsewhere", "../x", "a/../../b", "~/x"])
def test_a_path_that_no_volume_holds_is_refused(path):
    job = context_of({"aggregator": mounting("/mnt", NFS)}).job
    checkpoint = job.spec.checkpoint.model_copy(update={"path": path})
    job = job.model_copy(update={"spec": job.spec.model_copy(update={"checkpoint": checkpoint})})
    problem = path_problem(job)
    assert problem is not None
    assert path in problem
