"""Encrypted connections that are cut, or stay open but carry nothing: each worker behind a proxy."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec
import pytest
from engine_job import EngineJob
from tcp_proxy import Proxy

from backupsync.local.launches import Launches
from backupsync.trace import Membership


class Story(NamedTuple):
    """What happened; iterations in which workers joined anew."""

    job: EngineJob
    proxies: dict[int, Proxy]
    pids: dict[int, int | None]
    joined_after_cut: int
    joined_after_silence: int
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
        security={"encryption": "Curve"},
    ).start()
    job.wait(lambda: len(job.live()) == 3)
    pids = {rank: job.worker_pid(rank) for rank in range(3)}
    joined_after_cut = rejoin(job, proxies[0], 0, proxies[0].cut)
    joined_after_silence = rejoin(job, proxies[1], 1, proxies[1].silence)
    at_the_end = {rank: job.worker_pid(rank) for rank in range(3)}
    assert job.stop() == 130, job.explain()
    return Story(job, proxies, pids, joined_after_cut, joined_after_silence, at_the_end)


def rejoin(job: EngineJob, proxy: Proxy, rank: int, happen: Callable[[], None]) -> int:
    """Let it happen to the rank's connection, and wait until it has a new one and is accepted again."""

    def joins() -> list[int]:
        return [m.iteration for m in job.lines(Membership) if (m.rank, m.event) == (rank, "joined")]

    job.wait_until_accepted(rank, 1)
    connections, before = proxy.accepted, len(joins())
    happen()
    job.wait(lambda: proxy.accepted > connections and len(joins()) > before)
    job.wait_until_accepted(rank, 1, since=joins()[-1] + 1)
    return joins()[-1]


def test_a_worker_whose_connection_is_cut_joins_again_and_is_accepted(story: Story) -> None:
    assert story.job.accepted(0, 1, since=story.joined_after_cut)


def test_a_worker_behind_a_half_open_connection_finds_out_and_joins_again(story: Story) -> None:
    assert story.joined_after_silence > story.joined_after_cut
    assert story.job.accepted(1, 1, since=story.joined_after_silence)


def test_no_process_is_replaced_for_a_bad_connection(story: Story) -> None:
    assert None not in story.pids.values()
    assert story.pids_at_the_end == story.pids


def test_training_goes_on_meanwhile(story: Story) -> None:
    updates = story.job.updates()
    assert [u.iteration for u in updates] == list(range(len(updates)))
    assert {u.accepted for u in updates} == {2}


def test_an_onlooker_between_worker_and_aggregator_sees_neither_the_job_nor_its_tensors(story: Story) -> None:
    uid = story.job.home.read_facts().uid
    for proxy in story.proxies.values():
        assert b"CURVE" in proxy.seen
        assert len(proxy.seen) > 1000
        assert uid.encode() not in proxy.seen
        assert b"weight" not in proxy.seen
