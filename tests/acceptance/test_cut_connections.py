"""Connections that are cut, and connections that stay open but carry nothing: each worker behind a proxy."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec
import pytest
from engine_job import EngineJob
from tcp_proxy import Proxy

from backupsync.local.launches import Launches
from backupsync.trace import Membership


class Story(NamedTuple):
    """What happened, by the number of updates that had been applied."""

    job: EngineJob
    proxies: dict[int, Proxy]
    pids: dict[int, int | None]
    cut_at: int
    silent_at: int
    pids_at_the_end: dict[int, int | None]


@pytest.fixture(scope="module")
def proxies() -> Iterator[dict[int, Proxy]]:
    made: dict[int, Proxy] = {}
    yield made
    for proxy in made.values():
        proxy.close()


@pytest.fixture(scope="module")
def story(module_jobs: Callable[[str], EngineJob], proxies: dict[int, Proxy]) -> Iterator[Story]:
    plain = Launches.worker

    def behind_a_proxy(self: Launches, job: Any, replica: Any, starts: int) -> Any:
        spawn = plain(self, job, replica, starts)
        if replica.rank not in proxies:
            proxies[replica.rank] = Proxy(int(spawn.launch.endpoint.rpartition(":")[2]))
        endpoint = f"tcp://127.0.0.1:{proxies[replica.rank].port}"
        return spawn._replace(launch=msgspec.structs.replace(spawn.launch, endpoint=endpoint))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Launches, "worker", behind_a_proxy)
        yield happen(module_jobs("cut-connections"), proxies)


def happen(job: EngineJob, proxies: dict[int, Proxy]) -> Story:
    job.write(
        program={"entrypoint": "faulty:Uneven"},
        aggregation={
            "workers": 2,
            "backupWorkers": 1,
            "wire": {"transport": "Tcp", "heartbeatSeconds": 0.5, "timeoutSeconds": 3},
        },
        training={"iterations": 100_000},
    ).start()
    job.wait(lambda: len(job.live()) == 3)
    pids = {rank: job.worker_pid(rank) for rank in range(3)}
    cut_at = job.wait_for_more(5)
    proxies[0].cut()
    job.wait(lambda: proxies[0].accepted >= 2)
    job.wait_until_accepted(0, 1, since=job.traced_iterations())
    silent_at = job.wait_for_more(5)
    proxies[1].silence()
    job.wait(lambda: proxies[1].accepted >= 2)
    job.wait_until_accepted(1, 1, since=job.traced_iterations())
    at_the_end = {rank: job.worker_pid(rank) for rank in range(3)}
    assert job.stop() == 130, job.explain()
    return Story(job, proxies, pids, cut_at, silent_at, at_the_end)


def test_a_worker_whose_connection_is_cut_joins_again_and_is_accepted(story: Story) -> None:
    assert story.proxies[0].accepted >= 2
    assert [m for m in story.job.lines(Membership) if m.rank == 0 and m.iteration >= story.cut_at]
    assert story.job.accepted(0, 1, since=story.cut_at)


def test_a_worker_behind_a_half_open_connection_finds_out_and_joins_again(story: Story) -> None:
    assert story.proxies[1].accepted >= 2
    assert [m for m in story.job.lines(Membership) if m.rank == 1 and m.iteration >= story.silent_at]
    assert story.job.accepted(1, 1, since=story.silent_at)


def test_no_process_is_replaced_for_a_bad_connection(story: Story) -> None:
    assert None not in story.pids.values()
    assert story.pids_at_the_end == story.pids


def test_training_goes_on_meanwhile(story: Story) -> None:
    updates = story.job.updates()
    assert [u.iteration for u in updates] == list(range(len(updates)))
    assert {u.accepted for u in updates} == {2}
