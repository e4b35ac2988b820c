"""Worker pods that are deleted, killed, evicted, starved or never start."""

import pytest

from backupsync.kube import names
from support.api import ApiError, Object, name_of, path_of
from support.job import Job, alive, attempt_of, rank_of, uids
from support.machine import Machine
from support.manifest import endless, on_node, worker_template
from support.rounds import accepted_by, check_rounds
from support.space import Labels, Space
from support.traces import read_traces
from support.waiting import wait


def test_a_deleted_worker_is_replaced_and_training_goes_on_meanwhile(space: Space) -> None:
    job = space.start("deleted", **endless(), aggregation={"workers": 2, "backupWorkers": 1})
    job.wait_until_live(3)
    others, victim = job.pods("worker"), job.worker(1)
    assert victim is not None

    space.api.delete("pod", space.name, name_of(victim))

    job.wait_for_more(3)
    successor = job.wait_until_replaced(victim)
    assert attempt_of(successor) == 2
    assert uids(others) - uids([victim]) <= uids(job.pods("worker")), "the others were left alone"
    rank = next(r for r in job.status["ranks"] if r["rank"] == 1)
    assert rank["crashes"] == 0, "a deletion is nobody's crash"
    job.wait(lambda: accepted_by(read_traces(job)[1], 1, 2))
    assert check_rounds(read_traces(job)[1]) > 0


def test_a_worker_that_takes_too_much_memory_is_named_as_such(space: Space) -> None:
    limits = {"resources": {"requests": {"cpu": "10m"}, "limits": {"memory": "700Mi"}}}
    job = space.start(
        "hungry",
        program={"entrypoint": "linear:Hungry", "args": {"at": 0}},
        runPolicy={"backoffLimit": 1},
        worker={"template": worker_template(container=limits)},
    )
    condition = job.wait_until_failed()
    assert condition["reason"] == "BackoffLimitExceeded"
    assert "worker 0 failed 2 times in a row" in condition["message"]
    assert "memory" in condition["message"]
    killed = [pod for pod in job.pods("worker") if rank_of(pod) == 0]
    reasons = {state["reason"] for pod in killed for state in _terminated(pod)}
    assert reasons == {"OOMKilled"}


def test_a_worker_that_crashes_again_and_again_ends_the_job_with_its_traceback(space: Space) -> None:
    job = space.start(
        "crashing",
        program={"entrypoint": "linear:Crashing", "args": {"at": 0}},
        runPolicy={"backoffLimit": 1},
    )
    condition = job.wait_until_failed()
    assert condition["reason"] == "BackoffLimitExceeded"
    assert "ValueError: the cat sat on rank 0" in condition["message"]
    assert "linear.py" in condition["message"], "the user's own line is shown"
    assert job.state == "Failed"
    job.wait(lambda: job.told("BackoffLimitExceeded") or job.told("Failed"), failure=lambda: None)
    wait(lambda: not any(alive(pod) for pod in job.pods()), explain=job.explain)
    logs = space.api.kubectl("--namespace", space.name, "logs", "crashing-worker-0-1")
    assert "the cat sat on rank 0" in logs, "the pod of the first crash is still there to be read"


@pytest.mark.full
def test_a_worker_that_crashes_once_is_forgiven(space: Space) -> None:
    job = space.start(
        "forgiven",
        program={"entrypoint": "linear:Crashing", "args": {"at": 5, "attempts": 1, "step_seconds": 0.02}},
        training={"iterations": 60},
    )
    job.wait_until_succeeded()
    rank = next(r for r in job.status["ranks"] if r["rank"] == 0)
    assert (rank["attempt"], rank["crashesTotal"], rank["crashes"]) == (2, 1, 0)


def test_evictions_respect_the_budget(space: Space, labelled: Labels) -> None:
    labelled.set("yes")
    job = space.start(
        "evicted",
        **endless(),
        aggregation={"workers": 2, "backupWorkers": 1},
        worker={"template": worker_template({"nodeSelector": {labelled.key: "yes"}})},
    )
    job.wait_until_live(3)
    job.wait(lambda: _allowed(space, job) == 1)
    first, second = job.worker(0), job.worker(1)
    assert first is not None
    assert second is not None
    labelled.set(None)  # a successor finds no place for now

    assert _evict(space, name_of(first)) == "evicted"
    assert _evict(space, name_of(second)) == "refused"
    job.wait(lambda: (w := job.worker(0)) is not None and attempt_of(w) == 2)
    assert _evict(space, name_of(second)) == "refused"
    job.wait_for_more(5)

    labelled.set("yes")
    job.wait_until_replaced(first)
    job.wait(lambda: _allowed(space, job) == 1)
    assert _evict(space, name_of(second)) == "evicted"
    job.wait_until_replaced(second)
    assert {rank["crashes"] for rank in job.status["ranks"]} == {0}, "an eviction is nobody's crash"


def test_pods_that_fit_nowhere_show_the_schedulers_words_and_heal(space: Space) -> None:
    nowhere = worker_template(on_node("atlantis"))
    job = space.start("nowhere", worker={"template": nowhere})
    job.wait(lambda: "affinity" in _said(job) or "selector" in _said(job))
    assert job.state == "Pending"
    job.patch(runPolicy={"suspend": True})
    job.wait(lambda: job.state == "Suspended" and not job.pods())
    job.patch(worker={"template": {"spec": {"nodeSelector": None}}})
    job.patch(runPolicy={"suspend": False})
    job.wait_until_succeeded()


@pytest.mark.full
def test_pods_that_stay_pending_beyond_the_deadline_end_the_job(space: Space) -> None:
    job = space.start(
        "overdue",
        worker={"template": worker_template(on_node("atlantis"))},
        runPolicy={"pendingDeadlineSeconds": 5},
    )
    condition = job.wait_until_failed()
    assert "pendingDeadlineSeconds" in condition["message"]
    assert "atlantis" in condition["message"] or "node" in condition["message"]
    wait(lambda: not any(alive(pod) for pod in job.pods()), explain=job.explain)


@pytest.mark.full
def test_with_a_backup_worker_one_pending_pod_stops_nothing(space: Space) -> None:
    nodes = len(space.api.list("node"))
    one_a_node = {
        "labelSelector": {"matchLabels": {names.JOB_LABEL: "crowded", names.ROLE_LABEL: "worker"}},
        "topologyKey": "kubernetes.io/hostname",
    }
    apart = {
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [one_a_node]}}
    }
    job = space.start(
        "crowded",
        aggregation={"workers": nodes, "backupWorkers": 1},
        worker={"template": worker_template(apart)},
        **endless(),
    )
    job.wait_for_iteration(5)
    job.wait(lambda: job.status["workers"]["live"] == nodes)
    assert job.status["workers"]["pending"] == 1
    assert job.state == "Running"
    job.wait_for_more(5)


@pytest.mark.full
def test_an_image_that_is_missing_is_named(space: Space) -> None:
    container = {"image": "localhost/nobody-built-this:1", "imagePullPolicy": "Never"}
    job = space.start("imageless", worker={"template": worker_template(container=container)})
    job.wait(lambda: "nobody-built-this" in _said(job) or "ErrImageNeverPull" in _said(job))
    assert job.state == "Pending"


@pytest.mark.full
@pytest.mark.needs_own_cluster
def test_an_image_that_comes_late_heals_the_job(space: Space, machine: Machine) -> None:
    image = f"localhost/late-{space.name}:1"
    container = {"image": image, "imagePullPolicy": "Never"}
    job = space.start("late-image", worker={"template": worker_template(container=container)})
    job.wait(lambda: "ErrImageNeverPull" in _said(job) or image in _said(job))
    machine.tag_image(job.status["images"]["aggregator"].replace("aggregator", "worker"), image)
    job.wait_until_succeeded()


def _said(job: Job) -> str:
    """Everything the conditions say."""
    return " ".join(f"{c['reason']} {c['message']}" for c in job.status.get("conditions", []))


def _terminated(pod: Object) -> list[Object]:
    states = [status["state"] for status in pod["status"].get("containerStatuses", [])]
    return [state["terminated"] for state in states if "terminated" in state]


def _allowed(space: Space, job: Job) -> int:
    budget = space.api.find("budget", space.name, names.budget_name(job.name)) or {}
    return int(budget.get("status", {}).get("disruptionsAllowed", 0))


def _evict(space: Space, pod: str) -> str:
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": space.name},
    }
    try:
        space.api.raw("POST", path_of("pod", space.name, pod, "eviction"), body)
    except ApiError as error:
        assert error.code == 429, error
        return "refused"
    return "evicted"
