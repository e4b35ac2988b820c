"""An aggregator in a thread of the test's process, and the jobs it is given: a quadratic in one tensor."""

import contextlib
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from backupsync.control import AggregatorStatus, Desired, DesiredMember
from backupsync.launch import AggregatorLaunch, control_token
from backupsync.spec import BackupSyncJob
from backupsync.wire import messages as wire
from backupsync_aggregator.main import main

torch.set_num_threads(1)

DEADLINE = 60.0
KEY = bytes(range(32))
UID = "uid-of-the-job"
CHUNK = 4096
SIZE = 3000
"""Elements of the scripted model's one trainable tensor: 12000 bytes, three chunks."""
TARGET = np.linspace(-1.0, 1.0, SIZE, dtype=np.float32)


class DiedError(AssertionError):
    """The aggregator ended while something was waited for."""


def entries(size: int = SIZE, *, buffers: bool = False, frozen: bool = False) -> tuple[wire.TensorEntry, ...]:
    model = [wire.TensorEntry("w", "float32", (size,), "trainable")]
    if frozen:
        model.append(wire.TensorEntry("fixed", "float32", (8,), "frozen"))
    if buffers:
        model.append(wire.TensorEntry("mean", "float32", (4,), "buffer"))
        model.append(wire.TensorEntry("seen", "int64", (), "buffer"))
    return tuple(model)


def manifest(**changes: Any) -> dict[str, Any]:
    """Return a whole manifest; `changes` go into aggregation, training, checkpoint, security by name."""
    aggregation = {
        "workers": 2,
        "backupWorkers": 1,
        "wire": {"chunkBytes": CHUNK, "heartbeatSeconds": 1, "timeoutSeconds": 10},
    }
    training = {"iterations": 3, "batchSize": 4, "optimizer": {"name": "SGD", "lr": 0.5}}
    spec: dict[str, Any] = {
        "program": {"entrypoint": "module:Class"},
        "aggregation": aggregation | changes.get("aggregation", {}),
        "training": training | changes.get("training", {}),
        "checkpoint": {"everyIterations": 1} | changes.get("checkpoint", {}),
        "security": changes.get("security", {}),
    }
    document = {
        "apiVersion": "backupsync.dev/v1alpha1",
        "kind": "BackupSyncJob",
        "metadata": {"name": "quadratic"},
        "spec": spec,
    }
    return BackupSyncJob.model_validate(document).model_dump(by_alias=True, mode="json")


def desired(*members: Any, generation: int = 1, workers: int = 2, backups: int = 1, **more: Any) -> Desired:
    pairs = [
        m if isinstance(m, DesiredMember) else DesiredMember(*m) for m in members or ((0, 1), (1, 1), (2, 1))
    ]
    return Desired(
        term=0, generation=generation, members=tuple(pairs), workers=workers, backup_workers=backups, **more
    )


class RunningAggregator:
    """An aggregator in a thread of this process."""

    def __init__(self, launch: AggregatorLaunch) -> None:
        self.launch = launch
        self.code: int | None = None
        self._thread = threading.Thread(target=self._run, name="aggregator", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.code = main(self.launch)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def port(self) -> int:
        return json.loads(self.until(lambda: _text(self.launch.http_file), "the HTTP port"))["port"]

    def until(self, look: Callable[[], Any], what: str) -> Any:
        """Wait until `look()` is true and return it; fail when the aggregator ends first."""
        deadline = time.monotonic() + DEADLINE
        while not (seen := look()):
            if not self.alive:
                if seen := look():
                    return seen
                raise DiedError(f"the aggregator exited with {self.code} while waiting for {what}")
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            time.sleep(0.005)
        return seen

    def http(self, path: str, body: bytes | None = None, token: str | None = None) -> tuple[int, bytes]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=body)
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def tell(self, state: Desired, token: str | None = None) -> tuple[int, bytes]:
        return self.http("/control", msgspec.json.encode(state), token or control_token(KEY))

    def status(self) -> AggregatorStatus:
        code, body = self.http("/status")
        return msgspec.json.decode(body, type=AggregatorStatus) if code == 200 else None

    def until_status(self, look: Callable[[AggregatorStatus], Any], what: str) -> AggregatorStatus:
        def seen() -> AggregatorStatus | None:
            status = self.status()
            return status if status is not None and look(status) else None

        return self.until(seen, what)

    def metric(self, line: str) -> float:
        """Return the value of the sample that begins with `line`, 0 when there is none."""
        for text in self.http("/metrics")[1].decode().splitlines():
            if text.startswith(line + " "):
                return float(text.split()[-1])
        return 0.0

    def refused(self, code: str) -> float:
        return self.metric(f'backupsync_refused_messages_total{{code="{code}"}}')

    def exit_code(self) -> int:
        """Wait for the end and return how it ended."""
        self._thread.join(DEADLINE)
        assert not self.alive, "the aggregator did not end"
        assert self.code is not None, "the aggregator raised"
        return self.code

    def stop(self) -> int:
        """Stop it if it runs."""
        with contextlib.suppress(DiedError, OSError, HTTPException):  # it may have ended by itself
            self.tell(desired(generation=10**6, stop=True))
            while self.alive:
                self.status()  # read at the end, it lets the process go
        return self.exit_code()


def _text(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""
