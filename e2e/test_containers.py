"""What happens inside our containers: restart in place, SIGTERM to the first process, images run by hand."""

from typing import Any

import msgspec
import pytest

from backupsync.control import AggregatorStatus, Desired, DesiredMember
from backupsync.exits import Exit
from backupsync.kube import names
from backupsync.termination import decode_ending
from support.api import Api, Object, name_of
from support.job import Job
from support.manifest import endless
from support.space import Space
from support.waiting import wait

pytestmark = pytest.mark.full

STRANGE_UID = 1234567
"""A uid that no image knows, as clusters assign them that choose one per namespace."""
TELL = """
import sys, urllib.request
from pathlib import Path
from backupsync.launch import control_token
token = control_token(bytes.fromhex(Path(sys.argv[1]).read_text().strip()))
request = urllib.request.Request(f"http://127.0.0.1:{sys.argv[2]}/control", data=sys.stdin.buffer.read())
request.add_header("Authorization", f"Bearer {token}")
print(urllib.request.urlopen(request).status)
"""
SIGTERM = "import os, signal; os.kill(1, signal.SIGTERM)"


def ask_to_restart(job: Job, rank: int) -> None:
    """Say over the aggregator's control what an engine would: this rank is to restart in place."""
    answer, pod = job.answer(), job.aggregator()
    assert answer is not None
    assert pod is not None
    term, generation = answer.applied
    members = tuple(DesiredMember(m.rank, m.attempt) for m in answer.members)
    desired = Desired(
        term=term,
        generation=generation + 1,
        members=members,
        workers=answer.required,
        backup_workers=answer.backups,
        restart=tuple((m.rank, m.attempt) for m in members if m.rank == rank),
    )
    python = ("python3", "-c", TELL, f"{names.KEY_DIRECTORY}/key", str(names.HTTP_PORT))
    run_in(job.api, pod, "aggregator", *python, text=msgspec.json.encode(desired).decode())


def run_in(api: Api, pod: Object, container: str, *command: str, text: str | None = None) -> str:
    """Run a command in a container."""
    stdin = ("-i",) if text is not None else ()
    place = ("-n", pod["metadata"]["namespace"], name_of(pod), "-c", container)
    return api.kubectl("exec", *stdin, *place, "--", *command, text=text)


def started_again(answer: AggregatorStatus | None, rank: int) -> bool:
    """Whether the rank's process is a fresh one that trains."""
    members = answer.members if answer else ()
    return any(m.rank == rank and m.start == 1 and m.state == "Live" for m in members)


def wait_until_ended(api: Api, pod: Object) -> Object:
    """Wait for the end of the pod's one container; return how it ended."""

    def ended() -> Object | None:
        now = api.find("pod", pod["metadata"]["namespace"], name_of(pod)) or {}
        statuses = (now.get("status") or {}).get("containerStatuses") or []
        state: Object = statuses[0]["state"] if statuses else {}
        return state.get("terminated")

    return wait(ended)


def test_a_worker_restarts_in_place_and_its_pod_knows_nothing_of_it(space: Space) -> None:
    job = space.start("again", **endless())
    job.wait_until_live(2)
    pod = job.worker(1)
    assert pod is not None

    ask_to_restart(job, 1)

    job.wait(lambda: started_again(job.answer(), 1))
    job.wait_for_more()
    now = job.worker(1)
    assert now is not None
    assert now["metadata"]["uid"] == pod["metadata"]["uid"]
    assert now["status"]["containerStatuses"][0]["restartCount"] == 0
    said = job.api.kubectl("logs", "-n", space.name, name_of(pod), "-c", "worker")
    assert "starting again in place (start 1)" in said


def test_an_aggregator_that_is_told_to_end_leaves_its_last_status(space: Space) -> None:
    job = space.start_durable("told", **endless())
    job.wait_for_iteration(3)
    pod = job.aggregator()
    assert pod is not None
    before = job.iteration()

    run_in(job.api, pod, "aggregator", "python3", "-c", SIGTERM)

    how = wait_until_ended(job.api, pod)
    assert how["exitCode"] == Exit.SUCCESS
    ending = decode_ending(how["message"])
    assert ending is not None
    assert ending.reason == "Terminated"
    assert ending.checkpoint_iteration is not None
    assert ending.checkpoint_iteration >= before, "a checkpoint was written on the way out"
    job.wait(lambda: (a := job.answer()) is not None and a.epoch == 2 and a.iteration > before)
    assert {r["attempt"] for r in job.status["ranks"]} == {1}, "its workers waited"


def test_our_images_run_as_any_user_and_say_who_must_start_them(space: Space) -> None:
    job = space.start("images", **endless())
    job.wait(lambda: job.status.get("images"))
    images = job.status["images"]
    for role in ("worker", "aggregator"):
        space.api.create("pod", space.name, by_hand(role, images[role]))
        pod = space.api.get("pod", space.name, role)
        how = wait_until_ended(space.api, pod)
        assert how["exitCode"] == Exit.CONFIGURATION
        assert f"BACKUPSYNC_{role.upper()} is not set" in how["message"]


def by_hand(role: str, image: str) -> dict[str, Any]:
    """A pod of one of our images that nobody configured, with a read-only root and no volume at all."""
    container = {
        "name": role,
        "image": image,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    security = {"runAsNonRoot": True, "runAsUser": STRANGE_UID, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": role},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": security,
            "containers": [container],
        },
    }
