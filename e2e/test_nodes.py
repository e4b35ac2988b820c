"""Nodes that crash or are cut off, with workers or with the aggregator on them."""

from pathlib import Path

import pytest

from backupsync.trace import Resumed
from support.api import Object, name_of
from support.job import Job, alive, attempt_of, rank_of
from support.machine import Machine
from support.manifest import endless, on_node, pod_template, rather_on, spread, worker_template
from support.rounds import accepted_by, check_rounds
from support.space import Space
from support.traces import read_directory, read_traces
from support.waiting import wait

pytestmark = pytest.mark.needs_own_cluster

GRACE = {"nodeLostGraceSeconds": 3}


def spread_job(space: Space, machine: Machine, name: str) -> Job:
    """A job with workers on every node, and its aggregator where nothing will break."""
    job = space.start_durable(
        name,
        **endless(),
        aggregation={"workers": 2, "backupWorkers": 1},
        worker={"template": worker_template(spread(name))},
        aggregator={"template": pod_template("aggregator", on_node(machine.safe))},
        runPolicy=GRACE,
    )
    job.wait_until_live(3)
    return job


def on(job: Job, node: str) -> list[Object]:
    """The workers on a node."""
    found = [pod for pod in job.pods("worker") if pod["spec"].get("nodeName") == node]
    assert found, f"no worker was placed on {node}"
    return found


def test_workers_of_a_crashed_node_are_replaced(space: Space, machine: Machine) -> None:
    job = spread_job(space, machine, "crashed")
    lost, safe = on(job, machine.victim), machine.safe

    machine.crash(machine.victim)

    for pod in lost:
        successor = job.wait_until_replaced(pod)
        assert successor["spec"]["nodeName"] == safe
        rank = next(r for r in job.status["ranks"] if r["rank"] == rank_of(pod))
        assert rank["crashes"] == 0, "the node's crash is not the worker's"
    job.wait_for_more(5)
    names = {name_of(p) for p in job.pods("worker")}
    assert not names & {name_of(pod) for pod in lost}, "nobody waits for a node to confirm a deletion"
    assert check_rounds(read_traces(job)[1]) > 0


def test_the_revenants_of_a_mended_partition_are_fenced(space: Space, machine: Machine) -> None:
    job = spread_job(space, machine, "partitioned")
    victim = machine.victim
    lost = on(job, victim)

    machine.cut(victim)

    for pod in lost:
        job.wait_until_replaced(pod)
    machine.stop_kubelet(victim)  # so that nobody ends the revenants before they knock
    turned_away = 'backupsync_refused_messages_total{code="not-a-member"}'
    before, mended_at = job.metric(turned_away), job.iteration()
    machine.mend(victim)
    job.wait(lambda: job.metric(turned_away) > before)
    pairs = {(rank_of(pod), attempt_of(pod)) for pod in lost}
    job.wait(lambda: all(accepted_by(read_traces(job)[1], rank, number + 1) for rank, number in pairs))
    job.wait_for_more(5)
    machine.start_kubelet(victim)

    trace = read_traces(job)[1]
    assert check_rounds(trace) > 0
    for rank, number in pairs:
        assert max(accepted_by(trace, rank, number), default=-1) < mended_at, "a revenant was accepted"
    wait(lambda: not [pod for pod in lost if machine.containers_of(pod, victim)], explain=job.explain)


@pytest.mark.full
def test_an_aggregator_on_a_crashed_node_resumes_elsewhere(space: Space, machine: Machine) -> None:
    job = _aggregator_on_the_victim(space, machine, "agg-crashed", {})
    before, safe = job.iteration(), machine.safe

    machine.crash(machine.victim)

    job.wait(lambda: (a := job.answer()) is not None and a.epoch == 2 and a.iteration > before)
    pod = job.aggregator()
    assert pod is not None
    assert pod["spec"]["nodeName"] == safe
    job.wait(lambda: check_rounds(read_traces(job)[2]) > 0)
    second = read_traces(job)[2]
    resumed = next(line for line in second if isinstance(line, Resumed))
    assert before - 10 <= resumed.iteration


@pytest.mark.full
def test_of_two_aggregators_only_the_one_in_office_trains_and_writes(space: Space, machine: Machine) -> None:
    job = _aggregator_on_the_victim(space, machine, "agg-cut", rather_on(machine.victim))
    # Some of the workers are on the aggregator's side of the cut: it can go on, but must not write.
    folder = space.volumes.directory(job.name)
    old, there = job.aggregator(), machine.victim
    assert old is not None

    machine.cut(there)

    job.wait(lambda: (a := job.answer()) is not None and a.epoch == 2 and a.phase == "Training")
    claims = {path.name for path in folder.rglob("claims/epoch-*.json")}
    assert claims == {"epoch-00000001.json", "epoch-00000002.json"}
    published = checkpoints(folder, epoch=1)
    later = set[str]()

    def fenced() -> bool:
        later.update(checkpoints(folder, epoch=1))
        return not machine.containers_of(old, there)

    wait(fenced, explain=job.explain)
    assert "epoch 2 has been claimed; this aggregator's 1 may not write" in machine.log_of(old, there)
    machine.mend(there)
    job.wait_for_more(10)
    later.update(checkpoints(folder, epoch=1))
    assert later <= published, "an aggregator out of office has published a checkpoint"
    second = read_directory(folder)[2]
    assert check_rounds(second) > 10


@pytest.mark.full
def test_a_job_deleted_while_its_node_is_lost_leaves_nothing(space: Space, machine: Machine) -> None:
    job, victim = spread_job(space, machine, "lost-and-deleted"), machine.victim
    on(job, victim)
    machine.cut(victim)
    assert not machine.is_ready(victim)

    job.delete()

    job.wait_until_gone()
    left = [
        name_of(o)
        for kind in ("pod", "service", "secret", "budget")
        for o in space.api.list(kind, space.name)
        if name_of(o).startswith("lost-and-deleted")
    ]
    assert left == []
    claims = [name_of(c) for c in space.api.list("claim", space.name)]
    assert claims == ["lost-and-deleted-checkpoint"], "the model is retained"


def checkpoints(folder: Path, epoch: int) -> set[str]:
    """Names of the checkpoints that an epoch has published and that are still there."""
    return {path.name for path in folder.rglob(f"checkpoint-*-epoch-{epoch:08d}")}


def _aggregator_on_the_victim(space: Space, machine: Machine, name: str, workers: Object) -> Job:
    place = {"everyIterations": 5}
    job = space.start_durable(
        name,
        **endless(),
        checkpoint=place,
        aggregation={"workers": 2, "backupWorkers": 0},
        worker={"template": worker_template(workers or on_node(machine.safe))},
        aggregator={"template": pod_template("aggregator", rather_on(machine.victim))},
        runPolicy=GRACE,
    )
    job.wait_for_iteration(12)
    pod = job.aggregator()
    assert pod is not None
    assert alive(pod)
    assert pod["spec"]["nodeName"] == machine.victim
    return job
