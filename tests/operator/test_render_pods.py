"""Pods: what is injected into a user's template, and who wins."""

import json
from typing import Any

import pytest
from msgspec import json as msgjson
from rendering import container, context_of, environment, render

from backupsync.launch import AggregatorLaunch, WorkerLaunch
from backupsync.lifecycle.types import ReplicaId
from backupsync.spec import BackupSyncJob
from backupsync_operator.render import pod

WORKER, AGGREGATOR = ReplicaId("worker", 3, 2), ReplicaId("aggregator", 0, 5)


def worker(**spec: Any) -> dict[str, Any]:
    return {"worker": {"template": {"spec": spec}}}


def test_a_job_without_templates_gets_whole_pods():
    made = render(WORKER)
    assert made["metadata"]["name"] == "digits-worker-3-2"
    assert made["metadata"]["namespace"] == "lab"
    assert made["metadata"]["labels"]["backupsync.dev/rank"] == "3"
    assert made["metadata"]["labels"]["backupsync.dev/attempt"] == "2"
    owner = made["metadata"]["ownerReferences"][0]
    assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == ("u-1", True, False)
    assert container(made, "worker")["image"] == "worker:frozen"
    assert container(made, "worker")["command"] == ["python3", "-m", "backupsync_worker"]
    assert render(AGGREGATOR)["metadata"]["name"] == "digits-aggregator-5"


def test_a_worker_is_told_who_it_is_and_where_the_aggregator_is():
    launch = environment(render(WORKER), WorkerLaunch)
    assert (launch.job, launch.uid, launch.rank, launch.attempt, launch.start) == ("digits", "u-1", 3, 2, 0)
    assert launch.endpoint == "tcp://digits-aggregator.lab.svc:5555"
    assert launch.restart_in_place == "exec"
    BackupSyncJob.model_validate(launch.manifest)


def test_the_aggregator_is_told_its_epoch_and_what_is_desired():
    launch = environment(render(AGGREGATOR), AggregatorLaunch)
    assert launch.epoch == 5
    assert launch.endpoint == "tcp://*:5555"
    assert len(launch.desired["members"]) == 3
    assert launch.begun is False
    assert (launch.http_host, launch.http_port) == ("*", 8080)


def test_a_port_of_the_users_choice_is_used_on_both_sides():
    spec = {"aggregation": {"workers": 2, "backupWorkers": 1, "wire": {"port": 7000}}}
    assert environment(render(WORKER, spec), WorkerLaunch).endpoint.endswith(":7000")
    made = render(AGGREGATOR, spec)
    assert {p["name"]: p["containerPort"] for p in container(made, "aggregator")["ports"]} == {
        "wire": 7000,
        "http": 8080,
    }


@pytest.mark.parametrize("text", ["$(HOME)", "a$$b", "$", "${x}", "$(unclosed", "$$(HOME)"])
def test_no_dollar_of_the_manifest_is_expanded_by_the_kubelet(text):
    spec = {"program": {"entrypoint": "digits:Digits", "args": {"text": text}}}
    raw = next(
        v["value"]
        for v in container(render(WORKER, spec), "worker")["env"]
        if v["name"] == "BACKUPSYNC_WORKER"
    )
    launch = msgjson.decode(expanded(raw), type=WorkerLaunch)
    assert launch.manifest["spec"]["program"]["args"] == {"text": text}


def expanded(text: str) -> str:
    """As a kubelet expands a value (kubernetes: third_party/forked/golang/expansion), no variable set."""
    out, at = "", 0
    while at < len(text):
        if text[at] != "$" or at + 1 == len(text):
            out, at = out + text[at], at + 1
        elif text[at + 1] == "$":
            out, at = out + "$", at + 2
        elif text[at + 1] == "(" and ")" in text[at + 2 :]:
            end = text.index(")", at + 2)
            out, at = (
                out + text[at : end + 1].upper(),
                end + 1,
            )  # an unset one stays; shouted, so that it shows
        else:
            out, at = out + text[at : at + 2], at + 2
    return out


def test_templates_and_foreign_annotations_stay_out_of_the_launch():
    spec = {
        **worker(tolerations=[{"key": "secret-pool"}]),
        "checkpoint": {"volumeClaimTemplate": {"spec": {}}},
    }
    metadata = {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "whole-manifest"}}
    text = json.dumps(container(render(WORKER, spec, metadata=metadata), "worker")["env"])
    assert "secret-pool" not in text
    assert "whole-manifest" not in text


def test_labels_and_annotations_of_job_and_template_pass_and_ours_win():
    spec = {
        "worker": {
            "template": {
                "metadata": {
                    "labels": {"team": "template", "backupsync.dev/rank": "99"},
                    "annotations": {"note": "template"},
                }
            }
        }
    }
    metadata = {
        "labels": {"team": "job", "cost": "42", "kueue.x-k8s.io/queue-name": "q"},
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "x", "owner": "me"},
    }
    made = render(WORKER, spec, metadata=metadata)["metadata"]
    assert made["labels"]["team"] == "template"
    assert made["labels"]["cost"] == "42"
    assert made["labels"]["backupsync.dev/rank"] == "3"
    assert "kueue.x-k8s.io/queue-name" not in made["labels"], "its pods would be gated one by one"
    assert made["annotations"] == {"owner": "me", "note": "template"}


def test_the_users_container_wins_where_it_speaks():
    mine = {
        "name": "worker",
        "image": "mine:1",
        "command": ["/run"],
        "terminationMessagePolicy": "File",
        "securityContext": {"runAsUser": 1000, "readOnlyRootFilesystem": False},
    }
    made = container(render(WORKER, worker(containers=[mine])), "worker")
    assert (made["image"], made["command"]) == ("mine:1", ["/run"])
    assert "imagePullPolicy" not in made, "the API's own default follows the tag"
    assert made["terminationMessagePolicy"] == "File"
    assert made["securityContext"]["runAsUser"] == 1000
    assert made["securityContext"]["readOnlyRootFilesystem"] is False
    assert made["securityContext"]["allowPrivilegeEscalation"] is False


def test_arguments_alone_go_to_the_images_own_entry_point():
    made = container(render(WORKER, worker(containers=[{"name": "worker", "args": ["x"]}])), "worker")
    assert "command" not in made


def test_a_crash_ends_the_pod_whatever_the_template_says():
    mine = {"name": "worker", "restartPolicy": "Always", "restartPolicyRules": [{"action": "Restart"}]}
    sidecar = {"name": "proxy", "image": "p", "restartPolicy": "Always"}
    made = render(WORKER, worker(restartPolicy="Always", containers=[mine], initContainers=[sidecar]))
    assert made["spec"]["restartPolicy"] == "Never"
    assert "restartPolicy" not in container(made, "worker")
    assert "restartPolicyRules" not in container(made, "worker")
    assert made["spec"]["initContainers"] == [sidecar], "a native sidecar keeps its own"


def test_variables_of_ours_cannot_be_set_and_others_may_refer_to_them():
    mine = {
        "name": "worker",
        "env": [{"name": "BACKUPSYNC_WORKER", "value": "x"}, {"name": "A", "value": "b"}],
    }
    made = container(render(WORKER, worker(containers=[mine])), "worker")["env"]
    assert [v["name"] for v in made] == ["BACKUPSYNC_NODE", "BACKUPSYNC_WORKER", "A"]
    assert made[1]["value"] != "x"


def test_a_termination_message_path_of_the_users_is_told_to_the_process():
    mine = {"name": "worker", "terminationMessagePath": "/tmp/end"}
    made = container(render(WORKER, worker(containers=[mine])), "worker")["env"]
    assert {"name": "BACKUPSYNC_TERMINATION_LOG", "value": "/tmp/end"} in made


@pytest.mark.parametrize(
    ("resources", "threads"),
    [
        ({}, 1),
        ({"limits": {"cpu": "2500m"}}, 3),
        ({"limits": {"cpu": 4}}, 4),
        ({"limits": {"cpu": "1.5"}}, 2),
        ({"limits": {"cpu": "100m"}}, 1),
        ({"requests": {"cpu": "2"}}, 2),
        ({"limits": {"memory": "1Gi"}, "requests": {"cpu": "3"}}, 3),
        ({"limits": {"cpu": "nonsense"}}, 1),
        ({"limits": {"cpu": "2000000u"}}, 2),
    ],
)
def test_threads_follow_the_cpus_of_the_container(resources, threads):
    spec = worker(containers=[{"name": "worker", "resources": resources}])
    assert environment(render(WORKER, spec), WorkerLaunch).threads == threads
    assert environment(render(AGGREGATOR, spec), AggregatorLaunch).worker_threads == threads


def test_threads_of_the_manifest_win():
    spec = {
        **worker(containers=[{"name": "worker", "resources": {"limits": {"cpu": "8"}}}]),
        "training": {"iterations": 1, "batchSize": 1, "optimizer": {"lr": 0.1}, "threads": 2},
    }
    assert environment(render(WORKER, spec), WorkerLaunch).threads == 2


def test_the_pod_satisfies_the_restricted_level_by_itself():
    for made, role in ((render(WORKER), "worker"), (render(AGGREGATOR), "aggregator")):
        security = container(made, role)["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert security["readOnlyRootFilesystem"] is True
        assert made["spec"]["automountServiceAccountToken"] is False


def test_what_the_pod_says_about_security_holds_for_our_container_too():
    made = render(WORKER, worker(securityContext={"runAsUser": 7, "fsGroup": 8}))
    assert "runAsUser" not in container(made, "worker")["securityContext"]
    assert made["spec"]["securityContext"]["runAsUser"] == 7
    assert made["spec"]["securityContext"]["fsGroup"] == 8


@pytest.mark.parametrize("where", ["pod", "container"])
def test_a_user_who_asks_for_root_is_not_told_nonroot(where):
    root = {"runAsUser": 0}
    spec = (
        worker(securityContext=root)
        if where == "pod"
        else worker(containers=[{"name": "worker", "securityContext": root}])
    )
    assert "runAsNonRoot" not in container(render(WORKER, spec), "worker")["securityContext"]


def test_a_privileged_container_is_left_one():
    spec = worker(containers=[{"name": "worker", "securityContext": {"privileged": True}}])
    assert "allowPrivilegeEscalation" not in container(render(WORKER, spec), "worker")["securityContext"]


def test_every_volume_that_is_mounted_exists_and_tmp_is_the_users_if_they_say_so():
    mine = {"name": "worker", "volumeMounts": [{"name": "big", "mountPath": "/tmp/"}]}
    for made in (
        render(WORKER),
        render(AGGREGATOR),
        render(WORKER, worker(containers=[mine], volumes=[{"name": "big"}])),
    ):
        names = [v["name"] for v in made["spec"]["volumes"]]
        assert len(names) == len(set(names))
        mounts = [m for c in made["spec"]["containers"] for m in c["volumeMounts"]]
        assert {m["name"] for m in mounts} <= set(names)
        paths = [m["mountPath"].rstrip("/") for m in mounts]
        assert len(paths) == len(set(paths))


def test_workers_see_no_checkpoints():
    assert "backupsync-checkpoint" not in json.dumps(
        render(WORKER, {"checkpoint": {"volumeClaimTemplate": {"spec": {}}}})
    )


def test_the_aggregator_is_probed_where_the_template_has_no_probe():
    mine = {"name": "aggregator", "livenessProbe": {"exec": {"command": ["true"]}}}
    made = container(
        render(AGGREGATOR, {"aggregator": {"template": {"spec": {"containers": [mine]}}}}), "aggregator"
    )
    assert made["livenessProbe"] == mine["livenessProbe"]
    assert made["readinessProbe"]["httpGet"]["path"] == "/healthz"
    assert "livenessProbe" not in container(render(WORKER), "worker")


def test_rendering_changes_nothing_of_the_job_and_is_the_same_every_time():
    context = context_of(
        worker(containers=[{"name": "worker", "env": [{"name": "A", "value": "b"}]}], volumes=[{"name": "v"}])
    )
    before = context.job.model_dump_json()
    assert pod(context, WORKER) == pod(context, WORKER)
    assert context.job.model_dump_json() == before
