"""The API server restarts under running jobs."""

import pytest

from support.job import uids
from support.machine import Machine
from support.manifest import endless
from support.operator import Operator
from support.space import Space


@pytest.mark.full
@pytest.mark.needs_own_cluster
def test_training_and_operator_survive_a_restart_of_the_api_server(
    space: Space, machine: Machine, operator: Operator
) -> None:
    job = space.start("survivor", **endless())
    job.wait_until_live(2)
    before, at = uids(job.pods()), job.iteration()

    machine.restart_api_server()

    job.wait_for_iteration(at + 20)
    assert uids(job.pods()) == before
    progress = job.status["progress"]["iteration"]
    job.wait(lambda: job.status["progress"]["iteration"] > progress)
    victim = job.worker(1)
    assert victim is not None
    space.api.delete("pod", space.name, victim["metadata"]["name"])
    job.wait_until_replaced(victim)
    late = space.start("latecomer")
    late.wait_until_succeeded()
    operator.wait_until_ready()
