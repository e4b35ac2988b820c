"""The chart on a real API server: objects are taken, rights suffice and go no further, upgrades upgrade."""

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from backupsync.kube import names
from support.api import Api, Object
from support.manifest import job_manifest
from support.operator import CHART, NAMESPACE, RELEASE, Operator
from support.schemas import write_schemas
from support.space import Space
from support.waiting import wait

CRD = f"{names.PLURAL}.{names.GROUP}"
TESTS = Path(__file__).parents[1] / "tests" / "chart"
PREVIOUS = TESTS / "previous" / "backupsync"
VALUES = {"default": (), "everything": ("--values", str(TESTS / "everything.yaml"))}
MONITORS = ("ServiceMonitor", "PodMonitor")
"""Kinds that the API server knows only where the Prometheus operator is."""


def helm(api: Api, *arguments: str) -> str:
    """Run helm and return what it prints."""
    command = [os.environ.get("HELM", "helm"), "--kubeconfig", str(api.kubeconfig), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def may(api: Api, who: str, verb: str, resource: str, namespace: str, *more: str) -> bool:
    """Whether a subject may do something in a namespace."""
    words = ("auth", "can-i", verb, resource, "-n", namespace, "--as", who, *more)
    return api.kubectl(*words, check=False).split()[0] == "yes"  # warnings follow


def crd(api: Api) -> Object:
    """The CRD as it is installed."""
    found: Object = yaml.safe_load(api.kubectl("get", "crd", CRD, "-o", "yaml"))
    return found


@pytest.fixture(scope="module")
def rooms(api: Api) -> Iterator[list[str]]:
    """Two namespaces for the two that everything.yaml names; they warn of pods that are not `restricted`."""
    made = [f"e2e-{name}-{uuid.uuid4().hex[:6]}" for name in ("team-a", "team-b")]
    for name in made:
        labels = {"pod-security.kubernetes.io/warn": "restricted"}
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        api.create("namespace", None, body)
    yield made
    for name in made:
        api.delete("namespace", None, name)


# ---- what is rendered


@pytest.mark.parametrize("which", VALUES)
def test_the_api_server_takes_every_object(api: Api, rooms: list[str], which: str) -> None:
    text = helm(api, "template", RELEASE, str(CHART), "--namespace", rooms[0], *VALUES[which])
    text = text.replace(" team-a", f" {rooms[0]}").replace(" team-b", f" {rooms[1]}")
    objects = [o for o in yaml.safe_load_all(text) if o and o["kind"] not in MONITORS]
    words = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-")
    said = api.kubectl(*words, text=yaml.safe_dump_all(objects))
    assert said.count("serverside-applied (server dry run)") == len(objects) > 10
    assert "Warning" not in said


@pytest.mark.parametrize("which", VALUES)
def test_kubeconform_takes_every_object(api: Api, tmp_path: Path, which: str) -> None:
    if not (shutil.which("kubeconform") or os.environ.get("E2E_CLUSTER")):
        pytest.skip("no kubeconform on the PATH: the project's own cluster brings one")
    text = helm(api, "template", RELEASE, str(CHART), *VALUES[which])
    location = write_schemas(api, tmp_path)
    command = [
        "kubeconform",
        "-strict",
        "-summary",
        "-schema-location",
        location,
        "-skip",
        ",".join(MONITORS),
    ]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Invalid: 0, Errors: 0" in done.stdout
    broken = text.replace("terminationGracePeriodSeconds:", "terminationGraceSeconds:")
    assert subprocess.run(command, input=broken, capture_output=True, text=True, check=False).returncode != 0


# ---- what is allowed


def test_the_operators_rights_end_where_its_work_ends(api: Api, operator: Operator) -> None:
    account = operator.deployment()["spec"]["template"]["spec"]["serviceAccountName"]
    who = f"system:serviceaccount:{NAMESPACE}:{account}"
    allowed = {("create", "pods"), ("list", names.PLURAL), ("list", "nodes"), ("create", "secrets")}
    refused = {
        *(("get", "secrets"), ("list", "secrets"), ("delete", "secrets"), ("get", "configmaps")),
        *(("update", "pods"), ("patch", "nodes"), ("update", names.PLURAL)),
        *(
            ("create", "namespaces"),
            ("create", "clusterrolebindings"),
            ("patch", "customresourcedefinitions"),
        ),
    }
    found = {(verb, what): may(api, who, verb, what, "default") for verb, what in allowed | refused}
    assert {asked for asked, yes in found.items() if yes} == allowed
    assert may(api, who, "patch", names.PLURAL, "default", "--subresource=status")
    assert not may(api, who, "create", "pods", "default", "--subresource=exec")
    key = f"secret/{RELEASE}-key"
    assert may(api, who, "get", key, NAMESPACE)
    assert not may(api, who, "get", "secret/another", NAMESPACE)
    assert not may(api, who, "get", key, "default")


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize(("role", "writes"), [("view", False), ("edit", True), ("admin", True)])
def test_the_roles_of_a_namespace_cover_its_jobs(api: Api, rooms: list[str], role: str, writes: bool) -> None:
    room, who = rooms[0], f"{role}-{uuid.uuid4().hex[:6]}"
    api.kubectl("-n", room, "create", "rolebinding", who, f"--clusterrole={role}", f"--user={who}")
    wait(lambda: may(api, who, "list", names.PLURAL, room))  # roles are aggregated by a controller
    assert may(api, who, "create", names.PLURAL, room) is writes
    assert may(api, who, "patch", names.PLURAL, room, "--subresource=scale") is writes
    assert not may(api, who, "patch", names.PLURAL, room, "--subresource=status")
    assert not may(api, who, "list", names.PLURAL, "default")


@pytest.mark.full
def test_an_operator_of_one_namespace_needs_no_right_on_the_cluster(space: Space, operator: Operator) -> None:
    elsewhere = f"{space.name}-other"
    space.api.kubectl("create", "namespace", elsewhere)
    try:
        operator.install(f"watch.namespaces={{{space.name}}}")
        assert not space.api.kubectl("get", "clusterrole", RELEASE, "--ignore-not-found")
        space.api.create("job", elsewhere, job_manifest("unseen"))
        space.start("seen").wait_until_succeeded()
        assert not space.api.get("job", elsewhere, "unseen").get("status")
    finally:
        space.api.kubectl("-n", elsewhere, "delete", "bsj", "unseen", "--ignore-not-found")
        operator.restore()
        space.api.delete("namespace", None, elsewhere)


# ---- upgrade and uninstall


@pytest.mark.full
def test_an_upgrade_from_the_previous_chart_updates_the_crd_and_keeps_the_jobs(
    space: Space, operator: Operator
) -> None:
    api = space.api
    try:
        operator.install(chart=PREVIOUS)
        before = crd(api)
        job = space.start("kept", runPolicy={"suspend": True})
        uid = job.uid
        operator.install()
        assert crd(api)["metadata"]["uid"] == before["metadata"]["uid"]
        assert crd(api)["spec"]["versions"] != before["spec"]["versions"]
        operator.wait_until_ready()
        job.patch(runPolicy={"suspend": False})
        job.wait_until_succeeded()
        assert job.uid == uid
    finally:
        operator.restore()


@pytest.mark.full
def test_jobs_outlive_an_uninstalled_operator_and_go_on_under_the_next(
    space: Space, operator: Operator
) -> None:
    job = space.start("orphan", training={"iterations": 400})
    job.wait_for_iteration(3)
    try:
        helm(space.api, "uninstall", RELEASE, "--namespace", NAMESPACE, "--wait")
        assert crd(space.api)["metadata"]["name"] == CRD
        job.wait_for_more(3)
    finally:
        operator.restore()
    job.wait_until_succeeded()
