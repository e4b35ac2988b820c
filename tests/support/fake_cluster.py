"""What runs pods on the fake API server: a kubelet that marks them Running, aggregators that count."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiohttp import web
from fake_api import FakeApi, Object

from backupsync.control import AggregatorStatus, Desired, MemberStatus
from backupsync.kube import names
from backupsync.termination import encode_ending


class StubAggregator:
    """The aggregator of one pod: trains `speed` iterations per status request once N workers run."""

    def __init__(self, launch: dict[str, Any], speed: int) -> None:
        self.launch, self.speed = launch, speed
        self.desired = msgspec.convert(launch["desired"], type=Desired)
        self.controls: list[Desired] = []
        self.iteration = 0
        self.total = launch["manifest"]["spec"]["training"]["iterations"] or 0
        self.end_seen = False
        self.mute = False
        self.more: dict[str, Any] = {}
        self.last: AggregatorStatus | None = None

    def control(self, desired: Desired) -> bool:
        self.controls.append(desired)
        if desired.order < self.desired.order:
            return False
        self.desired = desired
        return True

    def status(self, running: set[tuple[int, int]]) -> AggregatorStatus:
        live = [m for m in self.desired.members if (m.rank, m.attempt) in running]
        if self.desired.suspend:
            phase = "Suspended"
        elif len(live) < self.desired.workers and self.iteration < self.total:
            phase = "Joining"
        else:
            self.iteration = min(self.total, self.iteration + self.speed)
            phase = "Succeeded" if self.iteration >= self.total else "Training"
        self.end_seen = self.end_seen or phase in ("Succeeded", "Suspended")
        status = AggregatorStatus(
            job=self.launch["job"],
            uid=self.launch["uid"],
            epoch=self.launch["epoch"],
            phase=phase,
            applied=self.desired.order,
            required=self.desired.workers,
            iteration=self.iteration,
            iterations_total=self.total,
            rate=float(self.speed),
            checkpoint_iteration=self.iteration,
            members=tuple(
                MemberStatus(
                    rank=m.rank,
                    attempt=m.attempt,
                    start=0,
                    state="Live",
                    phase="compute",
                    commits=self.iteration,
                )
                for m in live
            ),
        )
        self.last = msgspec.structs.replace(status, **self.more)
        return self.last


class Kubelet:
    """Runs every pod that is created, and ends those that are deleted."""

    def __init__(self, api: FakeApi, *, speed: int = 1) -> None:
        self.api, self.speed = api, speed
        self.aggregators: dict[str, StubAggregator] = {}
        """By the pod's address."""
        self.runs: Callable[[Object], bool] = lambda _: True
        """Whether a pod gets to run."""
        self.stopped = False
        """A kubelet cut off: nothing starts, and nobody confirms an end."""
        self._addresses = itertools.count(2)

    async def __aenter__(self) -> "Kubelet":
        application = web.Application()
        application.router.add_get("/status", self._status)
        application.router.add_post("/control", self._control)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "0.0.0.0", 0).start()
        self.port = int(self._runner.addresses[0][1])
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self._runner.cleanup()

    def aggregator(self, pod: str, namespace: str = "default") -> StubAggregator | None:
        held = self.api.get("pods", pod, namespace)
        return None if held is None else self.aggregators.get(held.get("status", {}).get("podIP", ""))

    async def exit(self, pod: str, code: int, message: str = "", **terminated: Any) -> None:
        """End a pod's container of ours."""
        held = self.api.get("pods", pod)
        assert held is not None
        role = held["metadata"]["labels"][names.ROLE_LABEL]
        ended = {
            "exitCode": code,
            "message": message,
            "reason": "Error" if code else "Completed",
            **terminated,
        }
        status = {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": [{"name": role, "state": {"terminated": ended}, "restartCount": 0}],
            "conditions": [],
        }
        await self.api.change("pods", pod, {"status": status}, held["metadata"]["namespace"])

    async def _run(self) -> None:
        while True:
            if not self.stopped:
                for pod in self._ours():
                    await self._tend(pod)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await self.api.next_change()

    def _ours(self) -> list[Object]:
        return [pod for pod in self.api.all("pods") if names.ROLE_LABEL in pod["metadata"].get("labels", {})]

    async def _tend(self, pod: Object) -> None:
        meta, status = pod["metadata"], pod.get("status") or {}
        if "deletionTimestamp" in meta:
            await self.api.gone("pods", meta["name"], meta["namespace"])
        elif not status.get("phase"):
            if self.runs(pod):
                await self._start(pod)
        elif status["phase"] == "Running" and self._over(pod):
            await self.exit(meta["name"], 0, self._last_words(status["podIP"]))

    def _last_words(self, address: str) -> str:
        """What an aggregator leaves behind for an operator that was away."""
        aggregator = self.aggregators.get(address)
        return encode_ending(aggregator.last) if aggregator is not None and aggregator.last else ""

    def _over(self, pod: Object) -> bool:
        """Aggregators end once their end was seen, workers once the aggregator that had let them in does."""
        labels = pod["metadata"]["labels"]
        if labels[names.ROLE_LABEL] == "aggregator":
            return self.aggregators[pod["status"]["podIP"]].end_seen
        ours = (a for a in self.aggregators.values() if a.launch["uid"] == labels[names.UID_LABEL])
        pair = int(labels[names.RANK_LABEL]), int(labels[names.ATTEMPT_LABEL])
        return any(a.end_seen and pair in {(m.rank, m.attempt) for m in a.desired.members} for a in ours)

    async def _start(self, pod: Object) -> None:
        meta = pod["metadata"]
        role, number = meta["labels"][names.ROLE_LABEL], next(self._addresses)
        address = f"127.1.{number // 250}.{number % 250 + 1}"
        if role == "aggregator":
            launch = json.loads(_variable(pod, "BACKUPSYNC_AGGREGATOR").replace("$$", "$"))
            self.aggregators[address] = StubAggregator(launch, self.speed)
        started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        status = {
            "phase": "Running",
            "podIP": address,
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [
                {"name": role, "state": {"running": {"startedAt": started}}, "ready": True, "restartCount": 0}
            ],
        }
        await self.api.change("pods", meta["name"], {"status": status}, meta["namespace"])

    def _asked(self, request: web.Request) -> StubAggregator:
        aggregator = self.aggregators.get(request.host.rsplit(":", 1)[0])
        if aggregator is None or aggregator.mute:
            raise web.HTTPServiceUnavailable
        return aggregator

    async def _status(self, request: web.Request) -> web.Response:
        aggregator = self._asked(request)
        running = set()
        for pod in self._ours():
            labels = pod["metadata"]["labels"]
            ours = (
                labels[names.UID_LABEL] == aggregator.launch["uid"] and labels[names.ROLE_LABEL] == "worker"
            )
            if ours and (pod.get("status") or {}).get("phase") == "Running":
                running.add((int(labels[names.RANK_LABEL]), int(labels[names.ATTEMPT_LABEL])))
        return web.Response(body=msgspec.json.encode(aggregator.status(running)))

    async def _control(self, request: web.Request) -> web.Response:
        aggregator = self._asked(request)
        taken = aggregator.control(msgspec.json.decode(await request.read(), type=Desired))
        return web.json_response({}, status=200 if taken else 409)


def _variable(pod: Object, name: str) -> str:
    containers = pod["spec"]["containers"]
    return next(v["value"] for c in containers for v in c.get("env", []) if v["name"] == name)
