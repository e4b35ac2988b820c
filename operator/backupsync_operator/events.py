"""Events of a job: one object per thing that happened, found again by its name; repeating raises its count.

They are for people. A lost one costs nothing, so no failure of theirs reaches the reconciliation.
"""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Final, Literal

from backupsync_operator.api import AlreadyExists, Api, ApiError, NotFound, Object
from backupsync_operator.kinds import EVENTS, JOBS
from backupsync_operator.queue import Key

LONGEST_MESSAGE: Final = 1024
"""Characters of a message: the API server's limit."""
REMEMBERED: Final = 4096
"""Events whose count is kept in mind."""
REPEAT_SECONDS: Final = 30.0
"""Shortest time between two writes of the same event."""
COMPONENT: Final = "backupsync-operator"

_log = logging.getLogger(__name__)


class Events:
    """Writes events, one after the other, beside whatever else goes on."""

    def __init__(self, api: Api, instance: str, *, repeat_seconds: float = REPEAT_SECONDS) -> None:
        self._api, self._instance, self._pause = api, instance, repeat_seconds
        self._queue: asyncio.Queue[Object] = asyncio.Queue(maxsize=1000)
        self._counts: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def announce(
        self, key: Key, uid: str, kind: Literal["Normal", "Warning"], reason: str, message: str
    ) -> None:
        """Have an event of the job written; dropped when too many wait."""
        now = _now()
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": event_name(key, uid, kind, reason, message), "namespace": key.namespace},
            "involvedObject": {
                "apiVersion": JOBS.api_version,
                "kind": "BackupSyncJob",
                "name": key.name,
                "namespace": key.namespace,
                "uid": uid,
            },
            "type": kind,
            "reason": reason,
            "message": _shortened(message),
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._instance,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            _log.warning("job %s: event %s dropped: too many wait", key, reason)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            event = await self._queue.get()
            try:
                await self._write(event)
            except ApiError as error:
                _log.info("event %s: not written: %s", event["metadata"]["name"], error)
            finally:
                self._queue.task_done()

    async def flush(self, seconds: float) -> None:
        """Wait until everything is written, at most so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._queue.join()
        except TimeoutError:
            _log.info("%s events were not written", self._queue.qsize())

    async def _write(self, event: Object) -> None:
        name, now = event["metadata"]["name"], asyncio.get_running_loop().time()
        count, at = self._counts.get(name, (0, 0.0))
        if count and now < at + self._pause:
            return
        if count == 0 or not await self._repeat(event, count + 1):
            count = await self._create(event)
        else:
            count += 1
        self._counts[name] = (count, now)
        self._counts.move_to_end(name)
        while len(self._counts) > REMEMBERED:
            self._counts.popitem(last=False)

    async def _create(self, event: Object) -> int:
        namespace, name = event["metadata"]["namespace"], event["metadata"]["name"]
        try:
            await self._api.create(EVENTS, namespace, event)
        except AlreadyExists:  # written before this operator started
            known = await self._api.read(EVENTS, namespace, name)
            count = int(known.get("count") or 1) + 1
            await self._repeat(event, count)
            return count
        return 1

    async def _repeat(self, event: Object, count: int) -> bool:
        """Raise the count of an event that is there; False where it has expired."""
        namespace, name = event["metadata"]["namespace"], event["metadata"]["name"]
        change = {"count": count, "lastTimestamp": event["lastTimestamp"]}
        try:
            await self._api.patch(EVENTS, namespace, name, change)
        except NotFound:
            return False
        return True


def event_name(key: Key, uid: str, kind: str, reason: str, message: str) -> str:
    """The name of an event: the same for the same thing said of the same job."""
    digest = hashlib.sha256("\0".join((uid, kind, reason, message)).encode()).hexdigest()
    return f"{key.name}.{digest[:16]}"


def _shortened(message: str) -> str:
    return message if len(message) <= LONGEST_MESSAGE else message[: LONGEST_MESSAGE - 1] + "…"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
