"""A job whose engine runs in a thread of the test's own process, with real processes for its replicas.

The forkserver outlives the job, so only the first of a test run pays for importing torch.
"""

import os
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from local_job import LocalJob

from backupsync.control import AggregatorStatus
from backupsync.errors import BackupSyncError
from backupsync.inject import load_profile
from backupsync.launch import AggregatorLaunch, WorkerLaunch
from backupsync.lifecycle.types import ReplicaId
from backupsync.local.child import run_role
from backupsync.local.client import AggregatorClient, UnreachableError, read_port
from backupsync.local.engine import Engine
from backupsync.local.events import read_events
from backupsync.local.forking import start_process
from backupsync.local.launches import Launches
from backupsync.local.observer import Silent
from backupsync.local.outputs import Outputs
from backupsync.local.preflight import torch_problems_in_fork
from backupsync.local.run import RunOptions, examine, prepare, start
from backupsync.spec import load_manifest
from backupsync.trace import Gradient, Iteration, Line, Membership

PROGRAMS = Path(__file__).parents[1] / "acceptance" / "programs"


class ThreadedEngine:
    """What `LocalJob` asks of an engine, for one that runs in a thread of this process."""

    def __init__(self, job: "EngineJob", options: RunOptions) -> None:
        self.pid = os.getpid()
        self.returncode: int | None = None
        self.error = ""
        self._job, self._options = job, options
        self._engine: Engine | None = None
        self._thread = threading.Thread(target=self._run, name=f"engine-{job.name}", daemon=True)
        self._thread.start()

    def poll(self) -> int | None:
        return None if self._thread.is_alive() else self.returncode

    def request_stop(self) -> None:
        """Ask the job to write a checkpoint and stop."""
        if self._engine is not None:
            self._engine.request_stop()

    def _run(self) -> None:
        job, home = self._job, self._job.home
        code = 2
        try:
            with home.lock.held(job.name):
                manifest = load_manifest(job.manifest)
                examine(manifest, home, self._options)
                prepared = prepare(manifest, job.manifest, home, self._options)
                self._engine = start(prepared, Silent(), self._options)
                phase = self._engine.run().phase
                Outputs(home, None, None).finish()
            code = {"Succeeded": 0, "Failed": 1}.get(phase, 130)
        except BackupSyncError as error:
            self.error = str(error)
        finally:
            self.returncode = code


class EngineJob(LocalJob):
    """One job in a directory of its own, run by an engine in this process."""

    def __init__(self, directory: Path, name: str) -> None:
        super().__init__(directory, name)
        copy_programs(directory)
        self.engines: list[ThreadedEngine] = []
        self.strays: list[psutil.Process] = []

    def gate(self, name: str) -> Path:
        """The file that opens a gate of `gated.py`."""
        return self.directory / f"gate-{name}"

    def start(self, profile: Path | None = None, *, replace: bool = False) -> "EngineJob":
        # From this thread, which outlives the engine's: the forkserver ends with the thread that started it.
        assert torch_problems_in_fork(load_manifest(self.manifest)) == []
        injection = None if profile is None else load_profile(profile).model_dump(mode="json", by_alias=True)
        self.engine = ThreadedEngine(self, RunOptions(replace=replace, injection=injection))  # type: ignore[assignment]
        self.engines.append(self.engine)  # type: ignore[arg-type]
        return self

    def run(self, profile: Path | None = None, *, replace: bool = False) -> int:
        return self.start(profile, replace=replace).finish()

    def stop(self) -> int:
        """Ask it to stop, to go on later, and wait until it has."""
        self.engines[-1].request_stop()
        return self.finish()

    @property
    def epoch(self) -> int:
        """Epoch of the aggregator in office."""
        return self.status.aggregator_attempt

    def asked(self) -> AggregatorStatus | None:
        """What the aggregator says at this moment."""
        return self._client(lambda client: client.status())

    def metric(self, line: str) -> float:
        """The sample of the aggregator's /metrics that begins with `line`, 0 when there is none."""
        body = self._client(lambda client: client._request("GET", "/metrics")[1].decode()) or ""
        return next((float(t.split()[-1]) for t in body.splitlines() if t.startswith(line + " ")), 0.0)

    def _client(self, ask: Any) -> Any:
        port = read_port(self.home.http_file(self.epoch))
        if port is None:
            return None
        with suppress(UnreachableError):
            return ask(AggregatorClient(port, ""))
        return None

    def lines(self, kind: type[Line]) -> list[Any]:
        return [line for line in self.trace if isinstance(line, kind)]

    def accepted(self, rank: int, attempt: int, since: int = 0) -> bool:
        """Whether a gradient of this pair was accepted in iteration `since` or later."""
        return any(
            (g.rank, g.attempt, g.outcome) == (rank, attempt, "accepted") and g.iteration >= since
            for g in self.lines(Gradient)
        )

    def wait_until_accepted(self, rank: int, attempt: int, since: int = 0) -> None:
        self.wait(lambda: self.accepted(rank, attempt, since))

    def wait_for_more(self, iterations: int) -> int:
        """Wait for so many further updates and return how many were applied before."""
        now = self.traced_iterations()
        self.wait_for_iteration(now + iterations)
        return now

    def joined(self, rank: int, attempt: int) -> bool:
        return any((m.rank, m.attempt) == (rank, attempt) for m in self.lines(Membership))

    def live(self) -> set[tuple[int, int]]:
        """Pairs that the aggregator calls live."""
        status = self.asked()
        return {(m.rank, m.attempt) for m in status.members if m.state == "Live"} if status else set()

    def updates(self) -> list[Iteration]:
        return self.lines(Iteration)

    def worker_launch(self, rank: int, attempt: int, **changes: Any) -> WorkerLaunch:
        """The launch that the engine gives to this worker (Tcp only), with `changes`."""
        spawn = self._launches().worker(self.home.read_job(), ReplicaId("worker", rank, attempt), 0)
        launch = msgspec.structs.replace(spawn.launch, start=0, metrics_port=None)
        return msgspec.structs.replace(launch, **changes)

    def aggregator_launch(self, epoch: int, **changes: Any) -> AggregatorLaunch:
        """The launch that the engine would give to the aggregator of this epoch, with `changes`."""
        desired = self.status.desired
        assert desired is not None
        scratch = self.directory / f"another-aggregator-{epoch}"
        scratch.mkdir(exist_ok=True)
        given = {
            "endpoint": f"ipc://{scratch}/socket",
            "http_file": str(scratch / "http.json"),
            "trace_file": str(scratch / "trace.jsonl"),
        } | changes
        job, facts = self.home.read_job(), self.home.read_facts()
        return AggregatorLaunch(
            job=job.metadata.name,
            uid=facts.uid,
            manifest=job.model_dump(mode="json", by_alias=True),
            key_file=str(self.home.key_file),
            epoch=epoch,
            desired=msgspec.to_builtins(desired),
            checkpoint_directory=facts.checkpoint_directory,
            **given,
        )

    def start_process(self, role: str, launch: WorkerLaunch | AggregatorLaunch, log: str) -> Any:
        """Start a process that the engine knows nothing of."""
        process = start_process(run_role, (role, launch, str(self.directory / log)), log)
        self.strays.append(psutil.Process(process.pid))
        return process

    def exit_code(self, process: Any) -> int:
        """Wait until a process of `start_process` has ended and return its exit code."""
        self.wait(lambda: process.exitcode is not None)
        return int(process.exitcode)

    def explain(self) -> str:
        events = [f"{e.reason}: {e.message}" for e in read_events(self.home.events_file)]
        error = [engine.error for engine in self.engines]
        return "\n".join([*error, *events[-40:], super().explain()])

    def processes(self) -> dict[int, psutil.Process]:
        named = {}
        for pid, process in super().processes().items():
            with suppress(psutil.NoSuchProcess):
                if self.name in " ".join(process.cmdline()):
                    named[pid] = process
        return named

    def clean(self) -> None:
        for engine in self.engines:
            engine.request_stop()
        for stray in self.strays:
            with suppress(psutil.NoSuchProcess):
                stray.kill()
        deadline = time.monotonic() + 5
        while any(engine.poll() is None for engine in self.engines):
            if time.monotonic() > deadline:
                for process in self.processes().values():
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
            time.sleep(0.02)

    def _launches(self) -> Launches:
        return Launches(self.home, self.home.read_facts(), self.directory, "text")


def copy_programs(directory: Path) -> None:
    """Put the programs of the acceptance tests beside a manifest."""
    for program in PROGRAMS.glob("*.py"):
        shutil.copy(program, directory)


def make_job(directory: Path, name: str) -> EngineJob:
    directory.mkdir(parents=True, exist_ok=True)
    return EngineJob(directory, name)


def failed_with(job: EngineJob) -> tuple[str, str]:
    """Reason and message of the condition Failed."""
    for condition in job.status.conditions:
        if condition.type == "Failed" and condition.status == "True":
            return condition.reason, condition.message
    pytest.fail(f"the job has not failed\n{job.explain()}")
