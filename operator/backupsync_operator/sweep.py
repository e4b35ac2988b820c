"""Going over everything now and then: what the watch may have missed, and pods that nobody owns any more.

A watch that is set up anew says what there is, not what has gone meanwhile: so each kind is listed, by
metadata alone, after such a moment and every few minutes. Pods of deleted jobs are the garbage collector's,
but on a lost node nobody confirms their end: those are deleted by force.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Final

from backupsync.kube import names
from backupsync_operator import observe
from backupsync_operator.api import Api, ApiError
from backupsync_operator.children import Children
from backupsync_operator.kinds import CHILDREN, JOBS, NODES, PODS, Kind
from backupsync_operator.queue import Key, Queue
from backupsync_operator.store import Object, Store, key_of

SELECTOR: Final = f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}"
LIST_SECONDS: Final = 300.0
"""Time between two lists of everything."""
SWEEP_SECONDS: Final = 10.0
"""Time between two looks at pods without a job."""
LOST_SECONDS: Final = 30.0
"""How long the node of such a pod is out of reach before the pod is deleted by force."""

_log = logging.getLogger(__name__)


class Sweep:
    """Goes over everything, until cancelled."""

    def __init__(
        self,
        api: Api,
        store: Store,
        children: Children,
        queue: Queue,
        namespaces: tuple[str, ...],
        *,
        clock: Callable[[], float] = time.time,
        sweep_seconds: float = SWEEP_SECONDS,
    ) -> None:
        self._api, self._store, self._children, self._queue = api, store, children, queue
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._cluster_wide = not namespaces
        self._clock, self._seconds = clock, sweep_seconds
        self._hint = asyncio.Event()

    def hint(self) -> None:
        """A watch was set up anew: list soon."""
        self._hint.set()

    async def run(self) -> None:
        """Sweep until cancelled; a failure is tried again at the next turn."""
        loop = asyncio.get_running_loop()
        listed = loop.time()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await self._hint.wait()
            try:
                if self._hint.is_set() or loop.time() > listed + LIST_SECONDS:
                    self._hint.clear()
                    listed = loop.time()
                    await self.prune()
                await self.release()
            except ApiError as error:
                _log.warning("sweep: %s", error)

    async def prune(self) -> None:
        """Drop from the store what is no more, and wake its jobs. Raises ApiError."""
        for kind in (JOBS, *CHILDREN, *((NODES,) if self._cluster_wide else ())):
            for namespace in self._namespaces if kind.namespaced else (None,):
                await self._prune(kind, namespace)

    async def _prune(self, kind: Kind, namespace: str | None) -> None:
        before = {held["metadata"]["uid"] for held in self._store.objects(kind)}
        found = await self._api.uids(kind, namespace, SELECTOR if kind in CHILDREN else "")
        for key in self._store.prune(kind, namespace, before, found):
            _log.info("job %s: a deletion among its %s had been missed", key, kind.plural)
            self._queue.add(key)

    async def release(self) -> None:
        """Delete by force the pods of deleted jobs that hang on lost nodes. Raises ApiError."""
        for pod in [pod for pod in self._store.objects(PODS) if self._orphan(pod) and self._lost(pod)]:
            name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            _log.info("pod %s: its job is gone and its node lost: deleted by force", name)
            await self._children.delete(PODS, pod, 0.0)

    def _orphan(self, pod: Object) -> bool:
        key: Key | None = key_of(PODS, pod)
        job = None if key is None else self._store.job(key)
        owner = (pod["metadata"].get("labels") or {}).get(names.UID_LABEL)
        ended = job is None or "deletionTimestamp" in job["metadata"] or job["metadata"]["uid"] != owner
        return ended and "deletionTimestamp" in pod["metadata"]

    def _lost(self, pod: Object) -> bool:
        nodes = self._store.nodes if self._cluster_wide else None
        seen = observe.replicas([pod], None, nodes, self._clock(), LOST_SECONDS)
        return any(replica.node_lost for replica in seen)
