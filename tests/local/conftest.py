"""Jobs of the local engine that are gone when the test is over."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from local_job import LocalJob


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Callable[[], LocalJob]]:
    """Makes jobs of the same name, each in a place of its own."""
    made: list[LocalJob] = []

    def make() -> LocalJob:
        directory = tmp_path / str(len(made))
        directory.mkdir()
        made.append(LocalJob(directory, "tiny"))
        return made[-1]

    yield make
    for job in made:
        job.clean()


@pytest.fixture
def job(jobs: Callable[[], LocalJob]) -> LocalJob:
    return jobs()


def events_of(job: LocalJob) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in job.home.events_file.read_bytes().splitlines()]


@pytest.fixture
def free_port() -> tuple[int, Callable[[], socket.socket]]:
    """A free port, and a way to hold it."""

    def hold() -> socket.socket:
        listener = socket.socket()
        listener.bind(("127.0.0.1", port))
        listener.listen()
        return listener

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return port, hold
