"""The pod that reads a checkpoint volume: what it mounts, and how little it may."""

import pytest
from cluster_objects import job_object

from backupsync.cluster import ClusterError
from backupsync.cluster.reader_pod import parsed, reader_pod
from backupsync.kube.checkpoints import place_of

CLAIM = {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}}


def made(**sections):
    job = job_object("Succeeded")
    job["spec"] |= sections
    place = place_of(parsed(job), job["metadata"]["uid"])
    return place, reader_pod(job, place, "digits-get-model-abc", "aggregator:1")


def test_a_claim_is_mounted_read_only_where_the_aggregator_sees_it():
    place, pod = made(checkpoint=CLAIM)
    [container], [volume] = pod["spec"]["containers"], pod["spec"]["volumes"]
    assert volume["persistentVolumeClaim"] == {"claimName": "digits-checkpoint", "readOnly": True}
    assert container["volumeMounts"] == [
        {"name": "checkpoint", "mountPath": "/var/run/backupsync/checkpoint", "readOnly": True}
    ]
    assert place.directory == "/var/run/backupsync/checkpoint/uid-digits"
    assert container["image"] == "aggregator:1"


def test_the_pod_is_restricted_short_lived_and_the_jobs():
    _, pod = made(checkpoint=CLAIM)
    security = pod["spec"]["containers"][0]["securityContext"]
    assert security["runAsNonRoot"]
    assert not security["allowPrivilegeEscalation"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["spec"]["activeDeadlineSeconds"] == 3600
    assert not pod["spec"]["automountServiceAccountToken"]
    assert [owner["uid"] for owner in pod["metadata"]["ownerReferences"]] == ["uid-digits"]
    assert "backupsync.dev/job" not in pod["metadata"]["labels"], "the operator must not take it for its own"


def test_the_users_own_volume_is_mounted_as_the_template_does():
    template = {
        "spec": {
            "nodeSelector": {"disk": "here"},
            "tolerations": [{"operator": "Exists"}],
            "securityContext": {"runAsUser": 1000, "fsGroup": 1000},
            "volumes": [{"name": "data", "emptyDir": {}}, {"name": "keep", "hostPath": {"path": "/srv"}}],
            "containers": [
                {
                    "name": "aggregator",
                    "volumeMounts": [
                        {"name": "data", "mountPath": "/data"},
                        {"name": "keep", "mountPath": "/data/keep", "subPath": "a"},
                    ],
                }
            ],
        }
    }
    _, pod = made(checkpoint={"path": "/data/keep/digits"}, aggregator={"template": template})
    spec = pod["spec"]
    assert spec["volumes"] == [{"name": "keep", "hostPath": {"path": "/srv"}}]
    assert spec["containers"][0]["volumeMounts"] == [
        {"name": "keep", "mountPath": "/data/keep", "subPath": "a", "readOnly": True}
    ]
    assert (spec["nodeSelector"], spec["tolerations"]) == ({"disk": "here"}, [{"operator": "Exists"}])
    assert spec["securityContext"]["runAsUser"] == 1000, "who wrote the files may read them"
    assert "runAsUser" not in spec["containers"][0]["securityContext"]


def test_a_volume_that_is_not_in_the_template_is_said():
    job = job_object("Succeeded")
    place = place_of(parsed(job), "u")._replace(kind="Template", directory="/elsewhere")
    with pytest.raises(ClusterError, match=r"no volume of spec.aggregator.template holds /elsewhere"):
        reader_pod(job, place, "x", "image")
