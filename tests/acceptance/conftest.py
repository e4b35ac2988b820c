"""Jobs with real processes, run by an engine in a thread of the test's process or by the command line."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine_job import EngineJob, copy_programs, make_job


class Jobs:
    """Makes jobs, each of its own name in a directory of its own, and clears up after them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.made: list[EngineJob] = []

    def __call__(self, name: str) -> EngineJob:
        self.made.append(make_job(self.directory / name, name))
        return self.made[-1]

    def clean(self) -> None:
        for job in self.made:
            job.clean()


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Callable[[str], EngineJob]]:
    made = Jobs(tmp_path)
    yield made
    made.clean()


@pytest.fixture(scope="module")
def module_jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], EngineJob]]:
    """Jobs that several tests of one module look at."""
    made = Jobs(tmp_path_factory.mktemp("jobs"))
    yield made
    made.clean()


@pytest.fixture(scope="session")
def programs() -> Callable[[Path], None]:
    """Copies the programs of these tests into a directory."""
    return copy_programs
