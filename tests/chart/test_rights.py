"""What the chart lets whom do: from one list of rules, for the cluster or for namespaces, and no more."""

import pytest
import yaml

from backupsync.kube import names

LISTED = {"watch": {"namespaces": ["a", "b"]}}
SYSTEM = "system"
"""The namespace that the tests render the release into."""


@pytest.fixture(scope="module")
def cluster_wide(helm):
    return helm.template()


@pytest.fixture(scope="module")
def listed(helm):
    return helm.template(LISTED)


@pytest.fixture(scope="module")
def rules(chart):
    return yaml.safe_load((chart / "files" / "rbac-rules.yaml").read_text())


def verbs(rules, resource):
    return {verb for rule in rules if resource in rule["resources"] for verb in rule["verbs"]}


def test_the_cluster_wide_operator_reads_nodes_beyond_the_list(cluster_wide, rules):
    role = cluster_wide.one("ClusterRole", "backupsync")
    nodes = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]}
    assert role["rules"] == [*rules, nodes]


def test_a_listed_operator_has_the_list_in_each_namespace_and_nothing_on_the_cluster(listed, rules):
    roles = {o["metadata"]["namespace"]: o["rules"] for o in listed.of("Role", "backupsync")}
    assert roles == {"a": rules, "b": rules}
    bindings = {o["metadata"]["namespace"]: o["subjects"] for o in listed.of("RoleBinding", "backupsync")}
    account = [{"kind": "ServiceAccount", "name": "backupsync", "namespace": SYSTEM}]
    assert bindings == {"a": account, "b": account}
    assert listed.of("ClusterRoleBinding") == []
    assert {name for kind, name in listed.names() if kind == "ClusterRole"} == {
        "backupsync-view",
        "backupsync-edit",
    }


@pytest.mark.parametrize("which", ["cluster_wide", "listed"])
def test_no_right_is_wider_than_its_words(which, request):
    objects = request.getfixturevalue(which)
    rules = [rule for kind in ("Role", "ClusterRole") for o in objects.of(kind) for rule in o["rules"]]
    assert rules
    for rule in rules:
        assert not {"*"} & {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
        assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
        assert not {"pods/exec", "pods/portforward", "serviceaccounts/token"} & set(rule["resources"])


def test_secrets_of_users_are_out_of_reach(rules, listed):
    assert verbs(rules, "secrets") == {"create"}
    (own,) = listed.of("Role", "backupsync-own")
    reading = [r for r in own["rules"] if "secrets" in r["resources"] and set(r["verbs"]) != {"create"}]
    assert reading == [
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["backupsync-key"], "verbs": ["get"]}
    ]


def test_the_operator_holds_one_lease_and_one_key_in_its_own_namespace(helm):
    objects = helm.template({"keySecret": {"name": "mine"}})
    (own,) = objects.of("Role", "backupsync-own")
    assert own["metadata"]["namespace"] == SYSTEM
    named = {r["resources"][0]: r["resourceNames"] for r in own["rules"] if "resourceNames" in r}
    (container,) = objects.one("Deployment")["spec"]["template"]["spec"]["containers"]
    told = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert named == {"leases": [told["BACKUPSYNC_LEASE_NAME"]], "secrets": [told["BACKUPSYNC_KEY_SECRET"]]}


def test_a_job_is_deleted_by_ttl_and_its_spec_is_the_users(rules):
    assert verbs(rules, names.PLURAL) == {"get", "list", "watch", "delete"}
    assert verbs(rules, f"{names.PLURAL}/status") == {"patch"}


def test_no_rights_are_made_when_somebody_else_makes_them(helm):
    objects = helm.template({"rbac": {"create": False}})
    made = {kind for kind, _ in objects.names()}
    assert not made & {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}


def test_whoever_may_view_or_edit_a_namespace_may_do_so_with_its_jobs(cluster_wide):
    view, edit = (cluster_wide.one("ClusterRole", suffix) for suffix in ("-view", "-edit"))
    label = "rbac.authorization.k8s.io/aggregate-to-"
    assert {k for k in view["metadata"]["labels"] if k.startswith(label)} == {f"{label}view"}
    assert {k for k in edit["metadata"]["labels"] if k.startswith(label)} == {f"{label}edit", f"{label}admin"}
    assert verbs(view["rules"], names.PLURAL) == {"get", "list", "watch"}
    assert verbs(edit["rules"], names.PLURAL) >= {"create", "patch", "update", "delete"}
    assert verbs(edit["rules"], f"{names.PLURAL}/scale") == {"get", "update", "patch"}
    for role in (view, edit):  # a status is the operator's
        assert verbs(role["rules"], f"{names.PLURAL}/status") == {"get"}
