"""kopf as informer, and no more: it lists and watches, we take in what it sees and wake the job concerned.

No handler of ours changes an object, so kopf leaves no finalizer and no annotation. The index functions fill
the store; no event handler runs before every kind has been listed and indexed once, so no job is ever looked
at with half of its children unseen.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import kopf

from backupsync.kube import names
from backupsync_operator.kinds import CHILDREN, JOBS, NODES, Kind
from backupsync_operator.metrics import Metrics
from backupsync_operator.queue import Key, Queue
from backupsync_operator.store import Store
from backupsync_operator.sweep import SELECTOR

PREFIX: Final = names.GROUP
SERVER_SECONDS: Final = 300
"""The API server ends a watch after this long; it is set up anew where it stood."""

FIRST_LIST_SECONDS: Final = 30.0
"""How long after the first list its objects may still be coming in."""

Login = Callable[[], Awaitable[dict[str, Any]]]
"""Returns the arguments of a kopf.ConnectionInfo."""


class Informers:
    """The watches over jobs, their children and, where they are within reach, nodes."""

    def __init__(
        self, store: Store, queue: Queue, metrics: Metrics, login: Login, namespaces: tuple[str, ...]
    ) -> None:
        self._store, self._queue, self._metrics = store, queue, metrics
        self._login, self._namespaces = login, namespaces
        self._stop = asyncio.Event()
        self._synced: float | None = None
        """Loop time at which everything had been listed once."""
        self.started: Callable[[], None] = lambda: None
        """Called once kopf has begun: it takes the signals for itself, which are ours."""
        self.relisted: Callable[[], None] = lambda: None
        """Called when a watch was set up anew: deletions may have been missed."""

    async def run(self) -> None:
        """Watch until stopped. Raises what a watch cannot recover from."""
        tasks = await kopf.spawn_tasks(
            registry=self._registry(),
            settings=informer_settings(),
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            stop_flag=self._stop,
        )
        self.started()
        await kopf.run_tasks(tasks, ignored=_NotTheirs())

    def stop(self) -> None:
        """Have `run` return."""
        self._stop.set()

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.ConnectionInfo:
            return kopf.ConnectionInfo(**await self._login())

        for kind in (JOBS, *CHILDREN, *(() if self._namespaces else (NODES,))):
            self._watch(registry, kind)
        return registry

    def _watch(self, registry: kopf.OperatorRegistry, kind: Kind) -> None:
        where = (kind.group, kind.version, kind.plural)

        @kopf.index(*where, registry=registry, id=f"index-{kind.plural}")
        async def index(body: kopf.Body, **_: Any) -> None:
            self._metrics.events.labels(kind.plural).inc()
            keys = self._store.put(kind, dict(body))
            if self._synced is not None:
                self._wake(keys)

        def needed(event: kopf.RawEvent, **_: Any) -> bool:
            # Additions and changes are in the store by now, and each further handler has its price.
            return self._synced is None or event["type"] in (None, "DELETED")

        @kopf.on.event(*where, registry=registry, id=f"event-{kind.plural}", when=needed)
        async def event(event: kopf.RawEvent, body: kopf.Body, **_: Any) -> None:
            self._seen(kind, event["type"], dict(body))

    def _seen(self, kind: Kind, change: str | None, body: dict[str, Any]) -> None:
        now = asyncio.get_running_loop().time()
        if self._synced is None:
            self._synced = now
            self._wake(self._store.jobs)  # everything is listed by now: each job is looked at once
        if change is None and now > self._synced + FIRST_LIST_SECONDS:
            self.relisted()
        if change == "DELETED":
            self._wake(self._store.remove(kind, body))

    def _wake(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._queue.add(key)


class _NotTheirs(frozenset["asyncio.Task[Any]"]):
    """Every task: kopf would cancel, at its end, whatever began in this loop after it did."""

    def __contains__(self, task: object) -> bool:
        return True


class _NoComparison(kopf.DiffBaseStorage):
    """Nothing is compared, as no handler asks what has changed: kopf would copy each object at each event."""

    def build(
        self,
        *,
        body: kopf.Body,  # noqa: ARG002
        extra_fields: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:  # noqa: ARG002
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        pass


def informer_settings() -> kopf.OperatorSettings:
    """Kopf's settings: a quiet informer that notices a dead watch."""
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.posting.loggers = False
    settings.watching.server_timeout = SERVER_SECONDS
    settings.watching.chunk_size = 500
    settings.networking.connect_timeout = 10
    settings.networking.request_timeout = 60
    settings.networking.error_backoffs = (0.1, 0.5, 1, 2, 3, 5, 8)
    settings.queueing.exit_timeout = 0.5
    settings.process.ultimate_exiting_timeout = None
    # Never used, as no handler of ours needs them; but never somebody else's either.
    settings.persistence.finalizer = f"{PREFIX}/never"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=PREFIX)
    settings.persistence.diffbase_storage = _NoComparison()
    for kind in CHILDREN:
        settings.watching.label_selectors[kind.group, kind.version, kind.plural] = SELECTOR
    logging.getLogger("kopf").setLevel(logging.WARNING)
    return settings
