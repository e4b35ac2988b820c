"""The whole operator in this process, against a small API server and a kubelet of ours."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from fake_api import FakeApi, Object
from fake_cluster import Kubelet
from kubernetes.aio.client import Configuration

from backupsync_operator.app import Operator
from backupsync_operator.settings import Settings

DEADLINE = 60.0


def settings(**changes: Any) -> Settings:
    given = {
        "worker_image": "example/worker:1",
        "aggregator_image": "example/aggregator:1",
        "lease_namespace": "operators",
        "identity": "operator-a",
        "http_port": 0,
        "progress_seconds": 3600.0,
        "lease_seconds": 120.0,
    }
    return Settings(**{**given, **changes})


def job(name: str = "digits", workers: int = 2, backups: int = 1, **spec: Any) -> Object:
    return {
        "apiVersion": "backupsync.dev/v1alpha1",
        "kind": "BackupSyncJob",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "program": {"entrypoint": "digits:Digits"},
            "aggregation": {"workers": workers, "backupWorkers": backups},
            "training": {"iterations": 5, "batchSize": 4, "optimizer": {"name": "SGD", "lr": 0.1}},
            **spec,
        },
    }


def forever(*, durable: bool = False) -> Object:
    """Parts of a spec: train until the test says it is enough, with checkpoints that last or not."""
    claim = {"spec": {"resources": {"requests": {"storage": "1Gi"}}}}
    training = {"iterations": 10**6, "batchSize": 4, "optimizer": {"name": "SGD", "lr": 0.1}}
    return {"training": training} | ({"checkpoint": {"volumeClaimTemplate": claim}} if durable else {})


class Cluster:
    """The API server, the kubelet, and whichever operators a test starts."""

    def __init__(self, api: FakeApi, kubelet: Kubelet) -> None:
        self.api, self.kubelet = api, kubelet
        self._clients = itertools.count()
        self._running: dict[Operator, tuple[str, asyncio.Task[None]]] = {}

    def start(self, **changes: Any) -> Operator:
        """Start an operator; from then on it must not die while the test waits for something."""
        client = f"operator-{next(self._clients)}"
        operator = Operator(
            settings(**changes),
            Configuration(host=self.api.via(client)),
            poll_seconds=0.05,
            aggregator_port=self.kubelet.port,
        )
        self._running[operator] = client, asyncio.create_task(operator.run())
        return operator

    async def stop(self, operator: Operator) -> None:
        """End it as SIGTERM does."""
        operator.stop()
        await self._running.pop(operator)[1]

    def sever(self, operator: Operator) -> None:
        """Cut it off from the API server, in the middle of whatever it says."""
        self.api.severed.add(self._running[operator][0])

    async def kill(self, operator: Operator) -> None:
        """End it as SIGKILL does: nothing it still wants to say is heard."""
        self.sever(operator)
        _, task = self._running.pop(operator)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def operator(self, **changes: Any) -> AsyncIterator[Operator]:
        """Have an operator while the body runs."""
        operator = self.start(**changes)
        try:
            yield operator
        finally:
            if operator in self._running:
                await self.stop(operator)

    async def until(self, what: str, predicate: Callable[[], Any]) -> Any:
        """Wait until `predicate` holds; fail at once when the operator has died."""
        end = time.monotonic() + DEADLINE
        while not (found := predicate()):
            for _, task in self._running.values():
                if task.done():
                    task.result()
            if time.monotonic() > end:
                raise AssertionError(f"{what}: not within {DEADLINE} s\n{self.describe()}")
            await asyncio.sleep(0.01)
        return found

    async def quiet(self) -> None:
        """Wait until every operator has nothing to do and for a while nothing changed."""

        def idle() -> bool:
            return all(o.queue.depth + o.queue.at_work == 0 for o in self._running)

        calm = 0
        while calm < 20:
            calm = calm + 1 if idle() else 0
            await asyncio.sleep(0.02)

    async def finish(self, aggregator: str) -> None:
        """Have a job reach its last iteration."""
        stub = self.kubelet.aggregator(aggregator)
        assert stub is not None
        stub.total = 0

    def status(self, name: str = "digits") -> Object:
        held = self.api.get("backupsyncjobs", name)
        return {} if held is None else held.get("status") or {}

    def state(self, name: str = "digits") -> str:
        return str(self.status(name).get("state", ""))

    def condition(self, kind: str, name: str = "digits") -> Object:
        return next((c for c in self.status(name).get("conditions", []) if c["type"] == kind), {})

    def running_pods(self) -> set[str]:
        return {
            pod["metadata"]["name"]
            for pod in self.api.all("pods")
            if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
        }

    @contextlib.asynccontextmanager
    async def beside(self, work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Have `work` done meanwhile; it must not fail."""
        task = asyncio.create_task(work)
        try:
            yield
        finally:
            if task.done():
                task.result()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def pods(self) -> set[str]:
        return {pod["metadata"]["name"] for pod in self.api.all("pods")}

    def describe(self) -> str:
        lines = [f"{pod['metadata']['name']}: {pod.get('status')}" for pod in self.api.all("pods")]
        for held in self.api.all("backupsyncjobs"):
            status = {k: v for k, v in (held.get("status") or {}).items() if k != "memory"}
            lines.append(f"{held['metadata']['name']}: {status}")
        return "\n".join(lines)
