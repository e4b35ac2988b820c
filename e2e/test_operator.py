"""The operator is killed, handed over and upgraded while jobs start and train: nothing of them is lost."""

import random
from collections.abc import Callable

import pytest

from support.api import Api, name_of
from support.job import Job, alive, uids
from support.machine import Machine
from support.manifest import endless
from support.operator import NAMESPACE, Operator
from support.space import Space
from support.waiting import wait

ROUNDS = 4


@pytest.fixture
def end(operator: Operator, api: Api, cluster_machine: Machine | None) -> Callable[[], None]:
    """Ends the operator in office at once, without a word; a new pod follows without a backoff."""

    def ended() -> None:
        pod = operator.active()
        if pod is None:
            return
        if cluster_machine is not None:
            cluster_machine.kill(pod, "operator")
        api.delete("pod", NAMESPACE, name_of(pod), grace=0)

    return ended


def wait_for_pods(job: Job, count: int) -> None:
    """Wait until the job has so many pods: the moment at which the operator is ended."""
    job.wait(lambda: len(job.pods()) >= count)


def test_an_operator_killed_again_and_again_loses_and_doubles_nothing(
    space: Space, operator: Operator, end: Callable[[], None]
) -> None:
    chance = random.Random(4)  # the same moments in every run, as far as a cluster has such a thing
    jobs: list[Job] = []
    for number in range(ROUNDS):
        job = space.start(f"round-{number}", training={"iterations": 40})
        jobs.append(job)
        wait_for_pods(job, chance.randrange(0, 4))
        end()
    for job in jobs:
        job.wait_until_succeeded(timeout=400)
    for job in jobs:
        names = sorted(name_of(pod) for pod in job.pods())
        assert names == [f"{job.name}-aggregator-1", f"{job.name}-worker-0-1", f"{job.name}-worker-1-1"]
        assert {r["crashesTotal"] for r in job.status["ranks"]} == {0}
    operator.wait_until_ready()


@pytest.mark.full
def test_a_running_job_does_not_notice_that_the_operator_is_gone(
    space: Space, operator: Operator, end: Callable[[], None]
) -> None:
    job = space.start("undisturbed", **endless())
    job.wait_until_live(2)
    before = uids(job.pods())
    for _ in range(3):
        end()
        job.wait_for_more(3)
        operator.wait_until_ready()
    assert uids(job.pods()) == before
    progress = job.status["progress"]["iteration"]
    job.wait(lambda: job.status["progress"]["iteration"] > progress)


@pytest.mark.full
def test_a_second_operator_takes_over_when_the_first_dies(
    space: Space, operator: Operator, end: Callable[[], None]
) -> None:
    job = space.start("handed-over", **endless())
    job.wait_until_live(2)
    before = uids(job.pods())
    try:
        operator.install("replicas=2")
        wait(lambda: len(operator.pods()) == 2, explain=operator.explain)
        first = operator.wait_until_ready()
        end()
        wait(lambda: operator.holder() not in ("", name_of(first)), explain=operator.explain)
        second = operator.wait_until_ready()
        assert name_of(second) != name_of(first)
        victim = job.worker(0)
        assert victim is not None
        space.api.delete("pod", space.name, name_of(victim))
        job.wait_until_replaced(victim)
        successor = job.worker(0)
        assert successor is not None
        assert uids(p for p in job.pods() if alive(p)) - before == uids([successor])
    finally:
        operator.restore()


@pytest.mark.full
def test_an_upgraded_operator_restarts_no_pod(space: Space, operator: Operator) -> None:
    job = space.start("upgraded", **endless())
    job.wait_until_live(2)
    before, images = job.pods(), job.status["images"]
    first = operator.wait_until_ready()
    try:
        # Images that are nowhere: only a job that begins now would get them.
        operator.install("podAnnotations.e2e=upgraded", "worker.image.tag=next", "aggregator.image.tag=next")
        second = operator.wait_until_ready()
        assert name_of(second) != name_of(first)
        progress = job.status["progress"]["iteration"]
        job.wait(lambda: job.status["progress"]["iteration"] > progress)
        job.wait_for_more(3)
        assert uids(job.pods()) == uids(before)
        victim = job.worker(0)
        assert victim is not None
        space.api.delete("pod", space.name, name_of(victim))
        job.wait_until_replaced(victim)
        assert job.status["images"] == images
    finally:
        operator.restore()
