"""The command line against the cluster: from a manifest to its model, and what it says on the way."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from backupsync.kube import names
from support.api import Object, name_of
from support.commands import Commands
from support.machine import Machine
from support.manifest import endless, job_manifest, on_node, pod_template, worker_template
from support.space import SOURCES, Space
from support.waiting import wait


@pytest.fixture
def run(space: Space, tmp_path: Path) -> Iterator[Commands]:
    """The command line, in this test's namespace and a folder of its own."""
    commands = Commands(space, tmp_path)
    yield commands
    commands.close()


def packed(name: str, **sections: object) -> Object:
    """A manifest whose workers mount no program: `submit` is to bring it."""
    return job_manifest(name, **{"worker": {"template": pod_template("worker")}, **sections})


def readers(space: Space) -> list[Object]:
    """The pods that read checkpoint volumes."""
    return space.api.list("pod", space.name, "app.kubernetes.io/component=get-model")


def test_a_job_is_submitted_with_its_program_followed_and_its_model_fetched(
    space: Space, run: Commands
) -> None:
    shutil.copy(SOURCES / "linear.py", run.folder)
    claim = {"everyIterations": 5, "volumeClaimTemplate": space.volumes.template("packed")}
    job = space.job("packed")
    path = run.write(packed("packed", checkpoint=claim, training={"emaDecay": 0.9}))

    done = run("submit", path, "--follow")

    assert done.code == 0, done.err
    assert "program: linear.py (" in done.err
    assert re.search(r"packed: Succeeded  iteration 20/20 .*mse ", done.err)
    config = space.api.get("configmap", space.name, names.program_name("packed"))
    assert [owner["uid"] for owner in config["metadata"]["ownerReferences"]] == [job.uid]
    again = run("submit", path)
    assert again.code == 2
    assert "exists already" in again.err

    done = run("get-model", "packed", "--out", "model", "--ema")

    assert done.code == 0, done.err
    for name in ("model.safetensors", "model-ema.safetensors"):
        assert load_file(run.folder / "model" / name).keys() == {"weight", "bias"}
    wait(lambda: not readers(space))

    assert run("status", "packed", "-o", "json").json["progress"]["iteration"] == 20
    assert [told["name"] for told in run("list", "-o", "json").json] == ["packed"]
    assert "Completed" in {event["reason"] for event in run("events", "packed", "-o", "json").json}
    assert "state Succeeded" in run("explain", "packed", "-o", "json").json["reasons"]
    assert "packed  Succeeded" in run("status", "packed").out

    done = run("delete", "packed", "--wait", "--timeout", "120")

    assert (
        done.out == "job packed: deleted; its checkpoints stay in PersistentVolumeClaim packed-checkpoint\n"
    )
    wait(lambda: space.api.find("configmap", space.name, names.program_name("packed")) is None)


@pytest.mark.full
def test_waiting_tells_success_failure_and_time_apart(space: Space, run: Commands) -> None:
    space.start("quick")
    space.start("wrong", program={"entrypoint": "linear:Nowhere"})
    space.start("endless", **endless())

    done = run("wait", "quick", "--timeout", "240", "-o", "json")
    assert (done.code, done.json["state"]) == (0, "Succeeded"), done.err
    done = run("wait", "wrong", "--timeout", "240")
    assert done.code == 1, done.err
    assert "job wrong: Failed, so it will not be succeeded: " in done.err
    assert run("wait", "wrong", "--for", "failed").code == 0
    assert run("wait", "endless", "--for", "running", "--timeout", "240").code == 0
    done = run("wait", "endless", "--timeout", "1")
    assert done.code == 124
    assert "not succeeded within 1 s; it is Running" in done.err
    gone = run.start("wait", "endless", "--for", "deleted")
    assert run("delete", "endless").code == 0
    assert gone.end() == 0
    assert run("wait", "absent").code == 2


def test_logs_are_followed_from_before_the_first_pod_to_a_workers_successor(
    space: Space, run: Commands
) -> None:
    job = space.start("followed", **endless())
    follow = run.start("logs", "followed", "--rank", "0", "--follow")
    everyone = run.start("logs", "followed", "--all", "--follow")
    follow.wait_for_line('"attempt": 1')
    everyone.wait_for_line("aggregator-1   | ")
    job.wait_until_live(2)
    victim = job.worker(0)
    assert victim is not None

    space.api.delete("pod", space.name, name_of(victim))

    follow.wait_for_line('"attempt": 2')
    everyone.wait_for_line("worker-0-2     | ")
    shown = run("logs", "followed", "--rank", "0").out
    assert '"attempt": 2' in shown
    assert '"attempt": 1' not in shown
    job.delete()
    assert (follow.end(), everyone.end()) == (0, 0)


def test_what_keeps_a_pod_from_running_is_explained(space: Space, run: Commands) -> None:
    space.start("stuck", worker={"template": worker_template(on_node("no-such-node"))})

    def told() -> str:
        return run("explain", "stuck").out

    wait(lambda: "pod stuck-worker-0-1 and 1 more: Pending: Unschedulable: " in told(), explain=told)
    assert "condition Ready=False" in told()
    lost = run("logs", "stuck", "--rank", "0")
    assert lost.code == 2
    assert "stuck-worker-0-1 is Pending" in lost.err
    assert "--follow waits for it" in lost.err


@pytest.mark.full
def test_a_size_the_api_server_refuses_is_said_in_its_words(space: Space, run: Commands) -> None:
    job = space.start("sized", **endless())
    done = run("scale", "sized", "--workers", "0")
    assert done.code == 2
    assert "spec.aggregation.workers: " in done.err
    assert "greater than or equal to 1" in done.err

    done = run("scale", "sized", "--workers", "1", "--backup-workers", "1")

    assert done.out == "job sized: N = 1, b = 1\n"
    job.wait(lambda: (answer := job.answer()) is not None and (answer.required, answer.backups) == (1, 1))


@pytest.mark.full
def test_a_running_jobs_newest_checkpoint_is_a_model(space: Space, run: Commands) -> None:
    job = space.start("underway", **endless(), checkpoint={"everyIterations": 2})
    job.wait_for_iteration(2)

    done = run("get-model", "underway", "--out", "model")

    assert done.code == 0, done.err
    assert load_file(run.folder / "model" / "model.safetensors")["weight"].shape == (1, 4)
    assert readers(space) == [], "the aggregator's own pod was read"
    job.delete()
    job.wait_until_gone()
    lost = run("get-model", "underway")
    assert lost.code == 2
    assert "it left no PersistentVolumeClaim underway-checkpoint" in lost.err


@pytest.mark.full
def test_a_job_is_suspended_and_resumed_from_the_command_line(space: Space, run: Commands) -> None:
    job = space.start_durable("paused", **endless())
    job.wait_for_iteration(5)
    assert run("suspend", "paused").code == 0
    assert run("wait", "paused", "--for", "suspended", "--timeout", "120").code == 0
    before = run("status", "paused", "-o", "json").json["progress"]["iteration"]
    wait(lambda: not job.pods("worker"))

    done = run("get-model", "paused", "--out", "model")
    assert done.code == 0, done.err
    assert run("resume", "paused").code == 0
    assert run("wait", "paused", "--for", "running", "--timeout", "120").code == 0
    assert job.wait_for_more() > before
    assert run("delete", "paused", "--checkpoints", "--wait", "--timeout", "120").code == 0
    assert space.api.find("claim", space.name, names.claim_name("paused")) is None


@pytest.mark.full
@pytest.mark.needs_own_cluster
def test_waits_and_logs_outlast_a_restart_of_the_api_server(
    space: Space, run: Commands, machine: Machine
) -> None:
    job = space.start("outlast", **endless())
    waiting = run.start("wait", "outlast", "--for", "deleted")
    follow = run.start("logs", "outlast", "--rank", "0", "--follow")
    job.wait_until_live(2)
    follow.wait_for_line('"attempt": 1')

    machine.restart_api_server()

    victim = job.worker(0)
    assert victim is not None
    space.api.delete("pod", space.name, name_of(victim))
    follow.wait_for_line('"attempt": 2')
    assert len(follow.lines) == len(set(follow.lines)), "no line came twice"
    job.delete()
    assert (waiting.end(), follow.end()) == (0, 0)


@pytest.mark.full
def test_a_reader_that_is_interrupted_leaves_no_pod(space: Space, run: Commands) -> None:
    job = space.start_durable("kept")
    job.wait_until_succeeded()
    job.wait(lambda: not [pod for pod in job.pods("aggregator") if pod["status"]["phase"] == "Running"])
    reading = run.start("get-model", "kept", "--image", "no.such.registry/image:1")
    wait(lambda: readers(space))

    reading.interrupt()

    assert reading.end() == 130
    wait(lambda: not readers(space))
    assert list(run.folder.iterdir()) == [], "nothing half-fetched is left"


@pytest.mark.full
def test_the_model_of_a_deleted_job_is_within_reach(space: Space, run: Commands) -> None:
    job = space.start_durable("past")
    job.wait_until_succeeded()
    image = job.status["images"]["aggregator"]
    job.delete()
    job.wait_until_gone()

    lost = run("get-model", "past")
    assert lost.code == 2
    assert "--image IMAGE" in lost.err
    done = run("get-model", "past", "--image", image, "--out", "model")
    assert done.code == 0, done.err
    assert load_file(run.folder / "model" / "model.safetensors")["weight"].shape == (1, 4)


def test_a_namespace_that_is_not_there_is_said_and_nothing_made(space: Space, run: Commands) -> None:
    manifest = packed("lost")
    manifest["metadata"]["namespace"] = "no-such-namespace"
    path = run.write(manifest)
    done = run("submit", path)
    assert done.code == 2
    assert "metadata.namespace is no-such-namespace, but --namespace says" in done.err
    manifest["spec"]["aggregation"]["workers"] = 0
    del manifest["metadata"]["namespace"]
    done = run("submit", run.write(manifest))
    assert done.code == 2
    assert "spec.aggregation.workers = 0" in done.err
    assert space.api.list("job", space.name) == []
