"""Pods of strangers in the same namespace, which try to join a job without its key, or with another one."""

import json
import secrets

import pytest

from backupsync.kube import names
from support.api import Object, name_of
from support.job import Job, uids
from support.manifest import PROGRAMS, endless
from support.space import Space
from support.waiting import wait


def stranger(job: Job, name: str, command: list[str], env: dict[str, str], key: str) -> Object:
    """A pod of the worker's image that is none of the job's."""
    of = job.worker(0)
    assert of is not None
    container = {
        "name": "stranger",
        "image": next(c["image"] for c in of["spec"]["containers"] if c["name"] == "worker"),
        "command": command,
        "env": [{"name": k, "value": v.replace("$", "$$")} for k, v in env.items()],
        "volumeMounts": [
            {"name": "key", "mountPath": names.KEY_DIRECTORY},
            {"name": "scratch", "mountPath": names.SCRATCH_DIRECTORY},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "programs", "mountPath": names.PROGRAM_DIRECTORY},
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    volumes = [
        {"name": "key", "configMap": {"name": key}},
        {"name": "scratch", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "programs", "configMap": {"name": PROGRAMS}},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "containers": [container], "volumes": volumes},
    }


def told(job: Job) -> Object:
    """What a worker of the job was told to be: a stranger can guess all of it but the key."""
    of = job.worker(0)
    assert of is not None
    return job.launch(of)


def ended(space: Space, name: str) -> Object | None:
    """The terminated state of the stranger's container, once it has ended."""
    pod = space.api.get("pod", space.name, name)
    states = [s["state"] for s in pod["status"].get("containerStatuses", [])]
    return next((s["terminated"] for s in states if "terminated" in s), None)


def test_a_stranger_with_another_key_is_refused_counted_and_told(space: Space) -> None:
    job = space.start("guarded", **endless())
    job.wait_until_live(2)
    before = uids(job.pods())
    space.config("wrong-key", {"key": secrets.token_bytes(32).hex()})
    launch = {**told(job), "rank": 1}

    pod = stranger(
        job,
        "stranger",
        ["python3", "-m", "backupsync_worker"],
        {"BACKUPSYNC_WORKER": json.dumps(launch)},
        "wrong-key",
    )
    space.api.create("pod", space.name, pod)

    end = job.wait(lambda: ended(space, "stranger"))
    assert end["exitCode"] == 78, "EX_CONFIG: it is told that its key is wrong"
    assert job.metric('backupsync_refused_messages_total{code="wrong-key"}') >= 1
    answer = job.answer()
    assert answer is not None
    assert "wrong-key" in {refusal.code for refusal in answer.refusals}
    job.wait(lambda: "wrong-key" in json.dumps([e.message for e in job.events()]))
    job.wait_for_more(3)
    assert uids(job.pods()) == before
    assert len(job.live()) == 2


@pytest.mark.full
def test_a_stranger_without_a_key_is_refused(space: Space) -> None:
    job = space.start("keyless", **endless())
    job.wait_until_live(2)
    space.config("no-key", {"nothing": ""})
    known = told(job)
    launch = {"endpoint": known["endpoint"], "uid": known["uid"], "rank": 1, "attempt": 1}

    pod = stranger(
        job,
        "stranger",
        ["python3", f"{names.PROGRAM_DIRECTORY}/stranger.py"],
        {"STRANGER": json.dumps(launch)},
        "no-key",
    )
    space.api.create("pod", space.name, pod)

    wait(lambda: ended(space, name_of(pod)), explain=job.explain)
    logs = space.api.kubectl("--namespace", space.name, "logs", "stranger")
    assert "never refused" not in logs
    assert "refused" in logs
    assert job.metric('backupsync_refused_messages_total{code="not-joined"}') >= 1
    job.wait_for_more(3)
    assert len(job.live()) == 2
