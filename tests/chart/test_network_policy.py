"""Who may knock at whose door: policies that name pods by the labels they really bear."""

import pytest
from helm import Refused

from backupsync.kube import names
from backupsync.lifecycle.types import ReplicaId

JOBS = {"watch": {"namespaces": ["a", "b"]}, "networkPolicy": {"jobs": {"enabled": True}}}


def selects(selector, labels):
    return selector["matchLabels"].items() <= labels.items()


@pytest.fixture(scope="module")
def policies(helm):
    return helm.template(JOBS)


@pytest.mark.parametrize("replica", [ReplicaId("worker", 3, 2), ReplicaId("aggregator", 0, 1)])
def test_the_policy_of_jobs_selects_their_pods_and_admits_them(policies, replica):
    labels = names.replica_labels("digits", "uid", replica)
    for policy in policies.of("NetworkPolicy", "-jobs"):
        assert selects(policy["spec"]["podSelector"], labels)
        (same_namespace,) = policy["spec"]["ingress"][0]["from"]
        assert selects(same_namespace["podSelector"], labels)
        assert "namespaceSelector" not in same_namespace


def test_the_policy_of_jobs_leaves_other_pods_alone(policies):
    for policy in policies.of("NetworkPolicy", "-jobs"):
        assert not selects(policy["spec"]["podSelector"], {"app.kubernetes.io/part-of": "shop"})


def test_the_operator_is_admitted_to_the_control_port_alone(policies):
    (policy, _) = policies.of("NetworkPolicy", "-jobs")
    rule = policy["spec"]["ingress"][1]
    (peer,) = rule["from"]
    pod = policies.one("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert selects(peer["podSelector"], pod)
    assert peer["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "system"}}
    assert rule["ports"] == [{"port": "http"}]


def test_there_is_one_in_every_watched_namespace_or_in_those_named(helm, policies):
    assert [p["metadata"]["namespace"] for p in policies.of("NetworkPolicy", "-jobs")] == ["a", "b"]
    named = helm.template({"networkPolicy": {"jobs": {"enabled": True, "namespaces": ["c"]}}})
    assert [p["metadata"]["namespace"] for p in named.of("NetworkPolicy", "-jobs")] == ["c"]
    with pytest.raises(Refused, match="name the namespaces"):
        helm.template({"networkPolicy": {"jobs": {"enabled": True}}})


def test_prometheus_alone_scrapes_when_it_is_named(helm):
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    objects = helm.template({**JOBS, "networkPolicy": {"jobs": {"enabled": True}, "prometheus": [peer]}})
    (operator,) = objects.of("NetworkPolicy", "backupsync")
    assert operator["spec"]["ingress"] == [{"ports": [{"port": "http"}], "from": [peer]}]
    for policy in objects.of("NetworkPolicy", "-jobs"):
        scrape = policy["spec"]["ingress"][2]
        assert scrape == {"ports": [{"port": "http"}, {"port": "metrics"}], "from": [peer]}


def test_a_pod_is_known_to_prometheus_by_its_labels(helm):
    values = {"metrics": {"podMonitor": {"enabled": True, "renderMode": "alwaysRender"}}}
    monitor = helm.template(values).one("PodMonitor")["spec"]
    labels = names.replica_labels("digits", "uid", ReplicaId("worker", 0, 1))
    assert selects(monitor["selector"], labels)
    assert set(monitor["podTargetLabels"]) <= labels.keys()
    assert set(monitor["podTargetLabels"]) == {
        names.JOB_LABEL, names.UID_LABEL, names.ROLE_LABEL, names.RANK_LABEL, names.ATTEMPT_LABEL,
    }  # fmt: skip
    assert all(endpoint["honorLabels"] is False for endpoint in monitor["podMetricsEndpoints"])
