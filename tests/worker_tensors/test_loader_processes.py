"""Loader processes: the same numbers as in the worker itself, ready ahead, and gone when they should be."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest
import torch

from backupsync.errors import ProgramError
from backupsync.spec.training import LoaderSpec
from backupsync_worker.data.batches import Batches, EndOfData
from backupsync_worker.data.loader import LoaderDied

MODULE = """
import os, random
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset


class Augmented(Dataset):
    def __init__(self, log=None):
        self.log = log

    def __len__(self):
        return 50

    def __getitem__(self, index):
        if self.log:
            with open(self.log, "a") as log:
                log.write(f"{index} {os.getpid()}\\n")
        numbers = [index, random.random(), np.random.rand(), torch.rand(()).item()]
        return torch.tensor(numbers, dtype=torch.bfloat16), {"raw": np.array(numbers), "n": index}


class Fails(Augmented):
    def __getitem__(self, index):
        raise LookupError(f"no such file: {index}")


class OddError(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


class FailsOddly(Augmented):
    def __getitem__(self, index):
        raise OddError("this", "that")


class Dies(Augmented):
    def __getitem__(self, index):
        os.kill(os.getpid(), 9)


class Hangs(Augmented):
    def __getitem__(self, index):
        Path(self.log).write_text(str(os.getpid()))
        import time
        time.sleep(600)


class Stream(IterableDataset):
    def __iter__(self):
        for number in range(7):
            yield number + random.random()
"""

SCRIPT = """
import os
import torch
from torch.utils.data import Dataset, TensorDataset
from backupsync.spec.training import LoaderSpec
from backupsync_worker.data.batches import Batches

print("the script runs")


class InScript(Dataset):
    def __len__(self):
        return 9

    def __getitem__(self, index):
        return torch.tensor(index)


with Batches(TensorDataset(torch.arange(9.0)), 4, seed=1, loader=LoaderSpec(workers=2)) as batches:
    print("read", len(batches.get(0)[0].data[0]))
Batches(InScript(), 4, seed=1, loader=LoaderSpec(workers=2))
"""

ORPHAN = """
import sys
sys.path.insert(0, sys.argv[1])
from loader_data import Hangs
from backupsync.spec.training import LoaderSpec
from backupsync_worker.data.batches import Batches

if __name__ == "__main__":
    Batches(Hangs(sys.argv[2]), 4, seed=1, loader=LoaderSpec(workers=1)).get(0)
"""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module that loader processes can import, as they import a user's program."""
    (tmp_path / "loader_data.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    import loader_data

    yield loader_data
    del sys.modules["loader_data"]


@pytest.fixture
def reading() -> Iterator[Callable[..., Batches]]:
    made: list[Batches] = []

    def make(dataset: Any, workers: int, **options: Any) -> Batches:
        made.append(Batches(dataset, 20, seed=3, loader=LoaderSpec(workers=workers), **options))
        return made[-1]

    yield make
    for batches in made:
        batches.close()


def until(holds: Callable[[], Any], failed: Callable[[], Any] = lambda: None, seconds: float = 60.0) -> Any:
    """Wait until the predicate holds; fail at once when `failed` says why it never will."""
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        assert not (why := failed()), why
        assert time.monotonic() < deadline, "the predicate did not hold in time"
        time.sleep(0.02)
    return value


def numbers(batches: Batches, ticket: int, hint: int | None = None) -> Any:
    (micro,) = batches.get(ticket, hint)
    tensor, fields = micro.data
    assert tensor.dtype == torch.bfloat16
    return tensor.tolist(), fields["raw"].tolist(), fields["n"].tolist()


def loaders() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if _title(p) == "backupsync loader"]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()).strip()
    except psutil.Error:
        return ""


# ---- the same numbers ------------------------------------------------------------------------------------


def test_any_number_of_processes_reads_the_same_numbers_as_none(data, reading):
    tickets = [0, 1, 5, 1]
    expected = [numbers(reading(data.Augmented(), 0), t) for t in tickets]
    for workers in (1, 3):
        batches = reading(data.Augmented(), workers)
        assert [numbers(batches, t, t + 1) for t in tickets] == expected


def test_a_wrong_hint_changes_nothing(data, reading):
    plain, hinted = reading(data.Augmented(), 0), reading(data.Augmented(), 2)
    for ticket, hint in [(0, 7), (1, 1), (2, None), (3, 4), (4, 9)]:
        assert numbers(hinted, ticket, hint) == numbers(plain, ticket)


def test_a_stream_is_read_by_one_process_in_its_order(data, reading):
    def all_of(batches: Batches) -> list[list[float]]:
        read = []
        with pytest.raises(EndOfData):
            while True:
                read.append(batches.get(len(read))[0].data.tolist())
        return read

    assert all_of(reading(data.Stream(), 2)) == all_of(reading(data.Stream(), 0))
    assert len(loaders()) <= 1


def test_the_hinted_mini_batch_is_read_ahead_and_only_once(data, reading, tmp_path):
    log = tmp_path / "log"

    def read() -> list[str]:
        return log.read_text().splitlines() if log.exists() else []

    batches = reading(data.Augmented(str(log)), 2)
    batches.get(0, 1)
    until(lambda: len(read()) == 40)
    batches.get(1)
    assert len(read()) == 40
    pids = {line.split()[1] for line in read()}
    assert str(os.getpid()) not in pids
    assert len(pids) == 2, "one mini-batch is shared out among the processes"


# ---- what goes wrong -------------------------------------------------------------------------------------


def test_an_exception_keeps_its_kind_its_words_and_its_traceback(data, reading):
    with pytest.raises(LookupError, match="no such file") as caught:
        reading(data.Fails(), 1).get(0)
    (note,) = caught.value.__notes__
    assert "raised in a loader process" in note
    assert "__getitem__" in note


def test_an_exception_that_cannot_be_pickled_still_says_what_it_said(data, reading):
    with pytest.raises(RuntimeError, match="OddError: this and that"):
        reading(data.FailsOddly(), 1).get(0)


def test_a_process_that_is_killed_is_named_with_its_exit_code(data, reading):
    with pytest.raises(LoaderDied, match=r"exit code -9 while reading.*spec.training.loader.workers"):
        reading(data.Dies(), 1).get(0)


def test_data_that_cannot_be_sent_to_another_process_is_refused_at_once_with_the_remedy(reading):
    with pytest.raises(ProgramError, match=r"dataset: cannot be sent .*top level .*loader.workers to 0"):
        reading([lambda: 1] * 40, 1)


def test_a_script_without_a_guard_runs_once_and_data_defined_in_it_is_refused(tmp_path):
    script = tmp_path / "own_loop.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["the script runs", "read 4"]
    assert "(InScript is defined in the script itself); define its classes" in done.stderr.splitlines()[-1]


# ---- no process is left ----------------------------------------------------------------------------------


def test_closing_ends_every_process(data, reading):
    batches = reading(data.Augmented(), 2)
    batches.get(0, 1)
    started = loaders()
    assert len(started) == 2
    batches.close()
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in started)


def test_closing_does_not_wait_for_a_read_that_hangs(data, reading, tmp_path):
    batches = reading(data.Hangs(str(tmp_path / "pid")), 1)
    future = batches._submit(batches._tasks(0))[0]
    pid = int(until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
    batches.close()
    assert not psutil.pid_exists(pid)
    assert isinstance(future.exception(), LoaderDied)


def test_processes_end_when_the_worker_is_killed(data, tmp_path):
    script = tmp_path / "orphan.py"
    script.write_text(ORPHAN)
    worker = subprocess.Popen([sys.executable, str(script), str(tmp_path), str(tmp_path / "pid")])
    pid = int(
        until(
            lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(),
            lambda: worker.poll() is not None and "the worker ended by itself",
        )
    )
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def test_a_closed_loader_starts_again_when_it_is_asked(data, reading):
    batches = reading(data.Augmented(), 1)
    before = numbers(batches, 0)
    batches.close()
    assert numbers(batches, 0) == before
