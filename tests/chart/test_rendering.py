"""What the chart renders, by what it does: images, environment, security, names, and what is on when."""

import os
from pathlib import Path

import pytest
import yaml
from helm import Refused

from backupsync_operator.settings import Settings

EVERYTHING = yaml.safe_load((Path(__file__).parent / "everything.yaml").read_text())
SNAPSHOT = Path(__file__).parent / "default.snapshot.yaml"
DIGEST = "sha256:" + "0" * 64


def pod_of(objects):
    return objects.one("Deployment")["spec"]["template"]


def container_of(objects):
    (container,) = pod_of(objects)["spec"]["containers"]
    return container


def environment_of(objects):
    """Environment of the operator's container; of what the downward API gives, the field's path."""
    variables = container_of(objects)["env"]
    return {
        v["name"]: v["value"] if "value" in v else v["valueFrom"]["fieldRef"]["fieldPath"] for v in variables
    }


@pytest.fixture(scope="module")
def default(helm):
    return helm.template()


@pytest.fixture(scope="module")
def everything(helm):
    return helm.template(EVERYTHING)


def test_it_passes_helms_own_lint(helm):
    helm.run("lint", "--strict", str(helm.chart))
    helm.run("lint", "--strict", str(helm.chart), values=EVERYTHING)


def test_the_default_is_what_it_was(default):
    """A change of the default is seen in review: UPDATE_SNAPSHOT=1 writes the file again."""
    shown = [o for o in default if o["kind"] != "CustomResourceDefinition"]  # a file of its own
    text = yaml.safe_dump_all(shown, sort_keys=False)
    if os.environ.get("UPDATE_SNAPSHOT"):
        SNAPSHOT.write_text(text)
    assert text == SNAPSHOT.read_text()


@pytest.mark.parametrize(("version", "taken"), [("1.28.15", False), ("1.29.0", True), ("1.34.1-gke.7", True)])
def test_a_cluster_that_is_too_old_is_refused(helm, version, taken):
    try:
        helm.template(None, "--kube-version", version)
    except Refused as refused:
        assert "chart requires kubeVersion: >=1.29.0-0" in str(refused)
        assert not taken
    else:
        assert taken


def test_the_packaged_chart_is_whole(helm, default, tmp_path):
    helm.run("package", str(helm.chart), "--destination", str(tmp_path))
    (package,) = tmp_path.glob("backupsync-*.tgz")
    packaged = helm._replace(chart=package)
    assert packaged.template() == default
    with pytest.raises(Refused, match="additional properties"):
        packaged.template({"misspelt": 1})


# ---- what the operator is told


def test_the_operator_understands_every_variable_it_is_given(default, everything):
    for objects in (default, everything):
        told = {k: v for k, v in environment_of(objects).items() if k.startswith("BACKUPSYNC_")}
        fields = {"BACKUPSYNC_" + name.upper() for name in Settings.model_fields}
        assert told.keys() == fields
        Settings.from_environment(told)


@pytest.mark.parametrize(
    ("values", "variable", "value"),
    [
        ({}, "BACKUPSYNC_NAMESPACES", ""),
        ({"watch": {"namespaces": ["b", "a"]}}, "BACKUPSYNC_NAMESPACES", "b,a"),
        ({}, "BACKUPSYNC_WORKER_IMAGE", "localhost/backupsync-worker:0.1.0"),
        ({"worker": {"image": {"tag": "x"}}}, "BACKUPSYNC_WORKER_IMAGE", "localhost/backupsync-worker:x"),
        (
            {"aggregator": {"image": {"tag": "x", "digest": DIGEST}}},
            "BACKUPSYNC_AGGREGATOR_IMAGE",
            f"localhost/backupsync-aggregator@{DIGEST}",
        ),
        ({"jobs": {"imagePullPolicy": "Never"}}, "BACKUPSYNC_IMAGE_PULL_POLICY", "Never"),
        ({"operator": {"workers": 3}}, "BACKUPSYNC_WORKERS", "3"),
        ({"operator": {"statusWritesPerSecond": 0.5}}, "BACKUPSYNC_STATUS_WRITES_PER_SECOND", "0.5"),
        ({"operator": {"progressSeconds": 60}}, "BACKUPSYNC_PROGRESS_SECONDS", "60"),
        ({"operator": {"leaseSeconds": 5}}, "BACKUPSYNC_LEASE_SECONDS", "5"),
        ({"operator": {"logFormat": "text"}}, "BACKUPSYNC_LOG_FORMAT", "text"),
        ({"operator": {"logLevel": "DEBUG"}}, "BACKUPSYNC_LOG_LEVEL", "DEBUG"),
        ({"keySecret": {"name": "mine"}}, "BACKUPSYNC_KEY_SECRET", "mine"),
        ({}, "BACKUPSYNC_IDENTITY", "metadata.name"),
        ({}, "BACKUPSYNC_LEASE_NAMESPACE", "metadata.namespace"),
        ({"operator": {"extraEnv": [{"name": "TZ", "value": "UTC"}]}}, "TZ", "UTC"),
    ],
    ids=str,
)
def test_a_variable_follows_its_value(helm, values, variable, value):
    assert environment_of(helm.template(values))[variable] == value


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ({}, "localhost/backupsync-operator:0.1.0"),
        ({"repository": "r.example.com/op"}, "r.example.com/op:0.1.0"),
        ({"tag": "2"}, "localhost/backupsync-operator:2"),
        ({"tag": "2", "digest": DIGEST}, f"localhost/backupsync-operator@{DIGEST}"),
    ],
    ids=str,
)
def test_the_image_is_chosen_by_tag_or_digest(helm, image, name):
    assert container_of(helm.template({"image": image}))["image"] == name


def test_probes_metrics_and_environment_name_one_port(default):
    container = container_of(default)
    (port,) = container["ports"]
    assert environment_of(default)["BACKUPSYNC_HTTP_PORT"] == str(port["containerPort"])
    probes = [container[probe]["httpGet"] for probe in ("livenessProbe", "readinessProbe")]
    assert [(p["path"], p["port"]) for p in probes] == [("/healthz", port["name"]), ("/readyz", port["name"])]
    (metrics,) = default.one("Service")["spec"]["ports"]
    assert metrics["targetPort"] == port["name"]


# ---- the pod


@pytest.mark.parametrize("which", ["default", "everything"])
def test_the_operator_satisfies_the_restricted_pod_security_level(which, request):
    pod = pod_of(request.getfixturevalue(which))["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        assert [port for port in container["ports"] if "hostPort" in port] == []
    assert all("emptyDir" in volume for volume in pod["volumes"])


def test_what_is_said_of_the_pod_reaches_it(everything):
    template = pod_of(everything)
    pod = template["spec"]
    for field in (
        "imagePullSecrets", "priorityClassName", "nodeSelector", "tolerations", "affinity",
        "terminationGracePeriodSeconds",
    ):  # fmt: skip
        assert pod[field] == EVERYTHING[field]
    assert EVERYTHING["podSecurityContext"].items() <= pod["securityContext"].items()
    assert EVERYTHING["securityContext"].items() <= pod["containers"][0]["securityContext"].items()
    assert pod["containers"][0]["resources"] == EVERYTHING["resources"]
    assert template["metadata"]["annotations"] == EVERYTHING["podAnnotations"]
    assert EVERYTHING["podLabels"].items() <= template["metadata"]["labels"].items()
    (spread,) = pod["topologySpreadConstraints"]
    assert spread["labelSelector"] == everything.one("Deployment")["spec"]["selector"]


def test_a_spread_constraint_keeps_a_selector_of_its_own(helm):
    own = {"maxSkew": 1, "topologyKey": "zone", "labelSelector": {"matchLabels": {"a": "b"}}}
    (spread,) = pod_of(helm.template({"topologySpreadConstraints": [own]}))["spec"][
        "topologySpreadConstraints"
    ]
    assert spread["labelSelector"] == own["labelSelector"]


def test_no_value_can_part_the_deployment_from_its_pods(helm):
    theft = {"app.kubernetes.io/name": "other", "app.kubernetes.io/component": "other"}
    objects = helm.template({"podLabels": theft, "commonLabels": theft, "replicas": 2})
    wanted = objects.one("Deployment")["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= pod_of(objects)["metadata"]["labels"].items()
    assert objects.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == wanted
    assert objects.one("Service")["spec"]["selector"] == wanted


def test_an_update_starts_the_new_operator_before_the_old_one_ends(default):
    strategy = default.one("Deployment")["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


# ---- what is there when


@pytest.mark.parametrize(("replicas", "budgets"), [(1, 0), (2, 1), (3, 1)])
def test_a_disruption_budget_comes_with_the_second_replica(helm, replicas, budgets):
    objects = helm.template({"replicas": replicas})
    assert objects.one("Deployment")["spec"]["replicas"] == replicas
    assert len(objects.of("PodDisruptionBudget")) == budgets


@pytest.mark.parametrize(
    ("values", "kind", "suffix"),
    [
        ({"serviceAccount": {"create": False}}, "ServiceAccount", ""),
        ({"crds": {"enabled": False}}, "CustomResourceDefinition", ""),
        ({"rbac": {"aggregate": False}}, "ClusterRole", "-view"),
        ({"metrics": {"service": {"enabled": False}}}, "Service", ""),
        ({"networkPolicy": {"operator": {"enabled": False}}}, "NetworkPolicy", ""),
        ({"replicas": 2, "podDisruptionBudget": {"enabled": False}}, "PodDisruptionBudget", ""),
    ],
    ids=str,
)
def test_a_switch_takes_its_objects_away(helm, default, values, kind, suffix):
    assert default.of(kind, suffix) or kind == "PodDisruptionBudget"
    assert helm.template(values).of(kind, suffix) == []


def test_an_account_that_exists_is_used(helm):
    objects = helm.template({"serviceAccount": {"create": False, "name": "given"}})
    assert pod_of(objects)["spec"]["serviceAccountName"] == "given"
    assert {s["name"] for o in objects.of("ClusterRoleBinding") for s in o["subjects"]} == {"given"}


@pytest.mark.parametrize("monitor", ["serviceMonitor", "podMonitor"])
def test_monitors_come_with_the_crds_of_prometheus(helm, monitor):
    kind = monitor[0].upper() + monitor[1:]
    known = ("--api-versions", "monitoring.coreos.com/v1")

    def rendered(mode, *arguments):
        values = {"metrics": {monitor: {"enabled": True, "renderMode": mode}}}
        return len(helm.template(values, *arguments).of(kind))

    assert rendered("skipIfMissing") == 0
    assert rendered("skipIfMissing", *known) == rendered("failIfMissing", *known) == 1
    assert rendered("alwaysRender") == 1
    with pytest.raises(Refused, match="the CRDs of the Prometheus operator"):
        rendered("failIfMissing")


# ---- names and labels


@pytest.mark.parametrize("release", ["a", "backupsync", "r" * 53])
def test_names_fit_whatever_the_release_is_called(helm, release):
    for values in ({}, EVERYTHING | {"fullnameOverride": ""}, {"fullnameOverride": "f" * 50}):
        for kind, name in helm.template(values, release=release).names():
            assert len(name) <= 63, (kind, name)
            assert not name.endswith("-"), (kind, name)


def test_everything_bears_the_labels_and_annotations_of_the_release(everything):
    for o in everything:
        labels = o["metadata"]["labels"]
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert labels["app.kubernetes.io/instance"] == "backupsync"
        assert labels["team"] == "training", o["kind"]
        assert o["metadata"]["annotations"]["example.com/owner"] == "training", o["kind"]


def test_the_notes_say_what_was_installed_and_what_comes_next(helm):
    def notes(values):
        return helm.run("install", "backupsync", str(helm.chart), "--dry-run=client", values=values)

    assert "runs the jobs of every namespace" in notes({})
    said = notes({"watch": {"namespaces": ["a", "b"]}, "crds": {"enabled": False}})
    assert "runs the jobs of a, b" in said
    assert "crds.enabled: false" in said
    assert "kubectl get backupsyncjobs --watch" in said


# ---- the CRD


def test_the_crd_is_the_file_with_labels_and_annotations(default, crd):
    rendered = default.one("CustomResourceDefinition")
    assert rendered["spec"] == crd["spec"]
    assert rendered["metadata"]["name"] == crd["metadata"]["name"]
    assert rendered["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_the_crd_goes_with_the_release_only_when_asked(everything):
    annotations = everything.one("CustomResourceDefinition")["metadata"]["annotations"]
    assert "helm.sh/resource-policy" not in annotations
    assert annotations["example.com/crd"] == "yes"


def test_the_crd_is_a_template_so_that_an_upgrade_updates_it(chart):
    assert not (chart / "crds").exists()
