"""Every aggregator of the pods that KWOK plays, as one HTTP server: who is meant follows from the address.

It answers /status as an aggregator that trains 8 iterations a second with all its workers, and takes
/control. The operator cannot tell: it asks each pod at its own address, and the node's routing brings all of
them here.
"""

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from backupsync.control import AggregatorStatus, Desired, MemberStatus
from backupsync.kube.names import HTTP_PORT
from backupsync.launch import AGGREGATOR_VARIABLE, AggregatorLaunch

RATE = 8.0


class Aggregator:
    """One of them."""

    def __init__(self, launch: AggregatorLaunch) -> None:
        self.launch, self.began = launch, time.time()
        self.desired = msgspec.convert(launch.desired, Desired)

    def status(self) -> AggregatorStatus:
        """What it says at this moment."""
        iteration = 1 + int((time.time() - self.began) * RATE)
        members = (
            MemberStatus(
                rank=m.rank, attempt=m.attempt, start=0, state="Live", phase="compute", commits=iteration
            )
            for m in self.desired.members
        )
        return AggregatorStatus(
            job=self.launch.job,
            uid=self.launch.uid,
            epoch=self.launch.epoch,
            phase="Training",
            applied=self.desired.order,
            required=self.desired.workers,
            backups=self.desired.backup_workers,
            iteration=iteration,
            iterations_total=1_000_000,
            examples=iteration * 32 * self.desired.workers,
            rate=RATE,
            eta_seconds=(1_000_000 - iteration) / RATE,
            loss=1.0 / iteration,
            learning_rate=0.1,
            members=tuple(members),
        )


class Stub:
    """All of them, by address."""

    def __init__(self) -> None:
        self.by_address: dict[str, Aggregator] = {}
        self._seen: set[str] = set()

    async def follow(self, command: list[str]) -> None:
        """Take in the aggregators' pods as kubectl shows them; raises when it ends."""
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, limit=2**22)
        assert process.stdout is not None
        lines: list[bytes] = []
        async for line in process.stdout:
            lines.append(line)
            if line == b"}\n":  # the end of one: what is inside is indented
                self.take_in(json.loads(b"".join(lines)))
                lines.clear()
        raise SystemExit("kubectl ended")

    def take_in(self, pod: dict[str, Any]) -> None:
        """Play this aggregator once it has an address."""
        address, uid = pod["status"].get("podIP"), pod["metadata"]["uid"]
        if not address or uid in self._seen:
            return
        self._seen.add(uid)
        container = next(c for c in pod["spec"]["containers"] if c["name"] == "aggregator")
        told = next(e["value"] for e in container["env"] if e["name"] == AGGREGATOR_VARIABLE)
        launch = msgspec.json.decode(told.replace("$$", "$"), type=AggregatorLaunch)
        self.by_address[address] = Aggregator(launch)

    def _asked(self, request: web.Request) -> Aggregator:
        transport = request.transport
        address = "" if transport is None else transport.get_extra_info("sockname")[0]
        found = self.by_address.get(address)
        if found is None:
            raise web.HTTPServiceUnavailable(text=f"no pod has {address}")
        return found

    async def status(self, request: web.Request) -> web.Response:
        """GET /status."""
        body = msgspec.json.encode(self._asked(request).status())
        return web.Response(body=body, content_type="application/json")

    async def control(self, request: web.Request) -> web.Response:
        """POST /control."""
        found, desired = self._asked(request), msgspec.json.decode(await request.read(), type=Desired)
        if desired.order < found.desired.order:
            return web.Response(status=409)
        found.desired = desired
        return web.Response()


async def serve(kubectl: str, kubeconfig: Path) -> None:
    """Serve until killed."""
    stub, application = Stub(), web.Application()
    application.router.add_get("/status", stub.status)
    application.router.add_post("/control", stub.control)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", HTTP_PORT, backlog=1024).start()
    selector = ["-A", "-l", "backupsync.dev/role=aggregator", "--field-selector", "spec.nodeName!="]
    await stub.follow(
        [kubectl, f"--kubeconfig={kubeconfig}", "get", "pods", *selector, "--watch", "-o", "json"]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kubectl")
    parser.add_argument("kubeconfig", type=Path)
    given = parser.parse_args()
    asyncio.run(serve(given.kubectl, given.kubeconfig))
