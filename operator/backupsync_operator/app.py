"""The operator as one process: election, informers, workers, line to the aggregators, sweep and HTTP.

A standby is ready and idle. Any part that ends ends the whole process, so that a healthy one takes its place.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Final

from backupsync.errors import BackupSyncError
from backupsync.kube.names import HTTP_PORT
from backupsync_operator.api import Api, ApiError, Configuration, configuration, connection_facts
from backupsync_operator.children import Children
from backupsync_operator.events import Events
from backupsync_operator.health import STUCK_SECONDS, Health, HttpServer
from backupsync_operator.informers import Informers
from backupsync_operator.keys import operator_key
from backupsync_operator.kinds import JOBS
from backupsync_operator.lease import Lease
from backupsync_operator.metrics import Metrics
from backupsync_operator.poller import POLL_SECONDS, Pollers
from backupsync_operator.queue import Queue
from backupsync_operator.reconcile import Reconciler
from backupsync_operator.settings import Settings
from backupsync_operator.store import Store
from backupsync_operator.sweep import Sweep
from backupsync_operator.workers import Workers

DRAIN_SECONDS: Final = 10.0
"""How long a look under way may take once the operator was asked to stop."""

KOPF_SECONDS: Final = 3.0
"""How long kopf may take to close its connections."""
CRD_SECONDS: Final = 2.0
"""Time between two looks for the CRD."""

_log = logging.getLogger(__name__)


class PartEnded(BackupSyncError):  # noqa: N818 -- a state
    """A part of the operator ended, though nobody had asked it to."""


class Operator:
    """One operator process."""

    def __init__(
        self,
        settings: Settings,
        found: Configuration | None = None,
        *,
        poll_seconds: float = POLL_SECONDS,
        aggregator_port: int = HTTP_PORT,
    ) -> None:
        self.settings, self._found = settings, found
        self._poll_seconds, self._aggregator_port = poll_seconds, aggregator_port
        self.metrics, self.health, self.queue, self.store = Metrics(), Health(), Queue(), Store()
        self.http = HttpServer(self.health, self.metrics)
        self.sweep_soon: Callable[[], None] = lambda: None
        """Have everything listed soon, as after a watch that was set up anew."""
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Ask the operator to end: looks under way are finished, the Lease is released."""
        self._stop.set()

    async def run(self) -> None:
        """Run until asked to stop. Raises BackupSyncError (LeaseLost, PartEnded) or a bug otherwise."""
        self._listen()
        found = self._found or await configuration()
        api = Api(found, self.metrics.count_request)
        settings = self.settings
        lease = Lease(
            api, settings.lease_namespace, settings.lease_name, settings.identity, settings.lease_seconds
        )
        self.metrics.watch(
            depth=lambda: self.queue.depth,
            oldest=lambda: self.queue.oldest_seconds,
            term=lambda: lease.term,
        )
        await self.http.start(settings.http_port)
        try:
            if not await self._until_stopped(self._installed(api), "CRD"):
                return
            if await self._until_stopped(lease.acquire(), "election"):
                await self._lead(api, lease)
        finally:
            self.queue.close()
            await self.http.close()
            await api.close()

    async def _lead(self, api: Api, lease: Lease) -> None:
        """Be the active operator: everything that works runs only here."""
        settings = self.settings
        key = await self._key(api)
        events = Events(api, settings.identity)
        pollers = Pollers(self.queue.add, self._aggregator_port, poll_seconds=self._poll_seconds)
        reconciler = Reconciler(
            settings,
            api,
            self.store,
            operator_key=key,
            term=lease.term,
            pollers=pollers,
            events=events,
            metrics=self.metrics,
        )
        workers = Workers(self.queue, reconciler.look, self.metrics, settings.workers)
        sweep = Sweep(api, self.store, Children(api, self.store, key), self.queue, settings.namespaces)
        informers = Informers(self.store, self.queue, self.metrics, self._login, settings.namespaces)
        informers.relisted, informers.started = sweep.hint, self._listen
        self.sweep_soon = sweep.hint
        self._watch_health(workers, lease)
        parts = {
            "lease": lease.hold(),
            "informers": informers.run(),
            "workers": workers.run(),
            "progress": reconciler.progress.run(),
            "events": events.run(),
            "sweep": sweep.run(),
        }
        running = {asyncio.create_task(part, name=name) for name, part in parts.items()}
        try:
            await self._first_end(running)
            await workers.drain(DRAIN_SECONDS)
            await events.flush(2.0)
        finally:
            watching = {task for task in running if task.get_name() == "informers"}
            await _end(running - watching)  # first of all: nothing is written once the Lease may be another's
            await pollers.close()
            informers.stop()
            await asyncio.wait(watching, timeout=KOPF_SECONDS)
            await _end(watching)
            await lease.release()

    async def _installed(self, api: Api) -> None:
        """Wait until the CRD is there: kopf would watch nothing, and never notice that it has come."""
        namespace = self.settings.namespaces[0] if self.settings.namespaces else None
        problem = "not asked yet"
        self.health.ready["CRD"] = lambda: problem
        while True:
            try:
                problem = (
                    "" if await api.served(JOBS, namespace) else f"{JOBS.plural}.{JOBS.group} is missing"
                )
            except ApiError as error:
                problem = str(error)
            if not problem:
                return
            _log.warning("waiting for the CRD: %s", problem)
            await asyncio.sleep(CRD_SECONDS)

    async def _key(self, api: Api) -> bytes:
        return await operator_key(api, self.settings.lease_namespace, self.settings.key_secret)

    async def _first_end(self, running: set["asyncio.Task[None]"]) -> None:
        """Wait until asked to stop. Raises what ended a part before that."""
        stopped = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            done, _ = await asyncio.wait({*running, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        for part in done & running:
            part.result()
            raise PartEnded(f"{part.get_name()}: ended though nobody had asked it to")

    async def _until_stopped(self, work: Coroutine[Any, Any, Any], name: str) -> bool:
        """Await `work`, whether it was done before the operator was asked to stop."""
        task = asyncio.create_task(work, name=name)
        stopped = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
                return True
            return False
        finally:
            await _end({task, stopped})

    async def _login(self) -> dict[str, Any]:
        # Read anew each time: the token of a service account is replaced now and then.
        return connection_facts(self._found or await configuration())

    def _watch_health(self, workers: Workers, lease: Lease) -> None:
        loop = asyncio.get_running_loop()

        def queue() -> str:
            oldest = self.queue.oldest_seconds
            return f"a job has waited {oldest:.0f} s" if oldest > STUCK_SECONDS else ""

        def renewed() -> str:
            age = loop.time() - lease.renewed_at
            return f"not renewed for {age:.0f} s" if age > 2 * self.settings.lease_seconds else ""

        self.health.alive |= {"queue": queue, "workers": lambda: workers.problem, "lease": renewed}

    def _listen(self) -> None:
        """Take SIGTERM and SIGINT for ourselves; outside the main thread nobody gets them."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(RuntimeError, ValueError, NotImplementedError):
                loop.add_signal_handler(number, self.stop)


async def _end(tasks: set["asyncio.Task[Any]"]) -> None:
    """Cancel these tasks and wait for their end, whatever it is."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
