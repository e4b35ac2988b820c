"""What the operator keeps in mind of one job between two looks, and how its status is written.

The only writer of a job's status is here. What was written is the base of the next write, so only what
differs is sent; each write names the resourceVersion it builds on, so that none ever lands on another job of
the same name, nor over another operator's.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import structs

from backupsync.control import AggregatorStatus
from backupsync.lifecycle import worth_writing
from backupsync.lifecycle.types import JobStatus, Rejection
from backupsync.spec import BackupSyncJob
from backupsync_operator.api import Api, Conflict, NotFound
from backupsync_operator.cr_status import View, difference, memory_of, status_of, time_of
from backupsync_operator.kinds import JOBS
from backupsync_operator.queue import Key
from backupsync_operator.refusals import Told
from backupsync_operator.store import Object

_SHOWN: Final = ("workers", "aggregator", "ranks")
"""What people see of the pods: written with the next progress, and once more at the end."""


class StatusOvertaken(Exception):  # noqa: N818 -- a state
    """The job on the server is not the one last written: everything must be looked at anew."""


class Record:
    """One job, by its uid."""

    def __init__(self, key: Key, resource: Object) -> None:
        """Begin with what the server holds. Raises msgspec.ValidationError for a memory nobody wrote."""
        self.key = key
        self.uid: str = resource["metadata"]["uid"]
        self.version: str = resource["metadata"]["resourceVersion"]
        self.base: Object = resource.get("status") or {}
        """The status as last written."""
        self.written: JobStatus = memory_of(self.base)
        """The memory as last written."""
        self.memory: JobStatus = self.written
        """The memory of the last plan: what it holds beyond `written` is found out again by looking."""
        self.view: View | None = None
        self.lock = asyncio.Lock()
        self.secret_at: float | None = None
        """Loop time at which the key's Secret was last seen to."""
        self.generation = 0
        """metadata.generation last planned for."""
        self.rejections: tuple[Rejection, ...] = ()
        """What the API server would not create when it was last tried."""
        self.rejected = 0
        """How often in a row."""
        self.rejected_until = 0.0
        """Loop time before which nothing is tried again."""
        self.refusals: dict[str, Told] = {}
        """What people were told of peers that the aggregator turned away, by code."""
        self._job: tuple[int, BackupSyncJob] | None = None

    def still(self, resource: Object) -> bool:
        """Whether the job on the server is the one we know, but for edits: those are taken in."""
        meta = resource["metadata"]
        if meta["uid"] != self.uid:
            return False
        if int(meta["resourceVersion"]) > int(self.version):
            if memory_of(resource.get("status")) != memory_of(self.base):
                return False
            self.version = meta["resourceVersion"]
        return True

    def job(self, resource: Object, parse: Callable[[Object], BackupSyncJob]) -> BackupSyncJob:
        """The job that `resource` asks for, parsed once per generation."""
        generation = generation_of(resource)
        if self._job is None or self._job[0] != generation:
            self._job = (generation, parse(resource))
        return self._job[1]

    def news(self, memory: JobStatus, generation: int) -> bool:
        """Whether the plan must be written down before it is acted upon."""
        told = self.base.get("observedGeneration")
        return told != generation or worth_writing(_urgent(self.written), _urgent(memory))


class Writer:
    """Writes statuses."""

    def __init__(self, api: Api, clock: Callable[[], float]) -> None:
        self._api, self._clock = api, clock

    async def write(self, record: Record, memory: JobStatus, view: View) -> bool:
        """Write the whole status; whether anything differed. Raises StatusOvertaken, ApiError."""
        async with record.lock:
            status = status_of(memory, view, record.base, self._clock())
            if memory.progress == record.written.progress and "progress" in record.base:
                status["progress"] = record.base["progress"]  # with the time of its last change
            written = await self._patch(record, status)
            record.written = memory
            return written

    async def write_shown(self, record: Record, answer: AggregatorStatus | None = None) -> bool:
        """Write the newest figures, and what was not worth a write of its own; whether any differed."""
        view, memory = record.view, record.memory
        if view is None:
            return False
        if answer is not None:
            memory = structs.replace(memory, progress=answer)
        same = memory.progress == record.written.progress and not worth_writing(record.written, memory)
        if same:
            shown = status_of(memory, view, record.base, self._clock())
            if all(shown.get(field) == record.base.get(field) for field in _SHOWN):
                return False
        return await self.write(record, memory, view)

    async def refuse(self, record: Record, generation: int, reason: str, message: str) -> bool:
        """Write that the job is not accepted, and nothing else; whether that was news. Raises as `write`."""
        async with record.lock:
            condition = _condition("Accepted", "False", reason, message, generation)
            old, at = record.base.get("conditions") or [], time_of(self._clock())
            refusal = {"conditions": _merged(old, condition, at), "observedGeneration": generation}
            return await self._patch(record, {"state": "Pending", **record.base, **refusal})

    async def _patch(self, record: Record, status: Object) -> bool:
        patch = difference(record.base, status)
        if patch is None:
            return False
        body: Object = {"metadata": {"resourceVersion": record.version}, "status": patch}
        try:
            answer = await self._api.patch(JOBS, record.key.namespace, record.key.name, body, "status")
        except (Conflict, NotFound) as error:
            raise StatusOvertaken(str(error)) from error
        record.version, record.base = answer["metadata"]["resourceVersion"], status
        return True


def generation_of(resource: Object) -> int:
    """metadata.generation of a job: it rises with every change of its spec."""
    return int(resource["metadata"].get("generation", 0))


def _urgent(memory: JobStatus) -> JobStatus:
    """The memory without what is found out again by looking, and so may be written with the next progress.

    The words of a condition are among it while its status and reason stand: they count pods and seconds.
    So is when pods were first seen pending, which an operator that starts anew says some seconds later.
    """
    return structs.replace(
        memory,
        pending_since=None,
        conditions=tuple(structs.replace(c, message="") for c in memory.conditions),
        aggregator_seen=False,
        members=tuple(structs.replace(m, seen=False) for m in memory.members),
        ranks=tuple(structs.replace(r, commits_seen=0) for r in memory.ranks),
    )


def _merged(old: Sequence[Object], new: Object, at: str | None) -> list[Object]:
    """Conditions with `new` in the place of the one of its type; its time moves only if the status flips."""
    made: dict[str, Any] = {c["type"]: c for c in old}
    before = made.get(new["type"])
    kept = before is not None and before["status"] == new["status"]
    made[new["type"]] = {**new, "lastTransitionTime": before["lastTransitionTime"] if before and kept else at}
    return list(made.values())


def _condition(kind: str, value: str, reason: str, message: str, generation: int) -> Object:
    return {
        "type": kind,
        "status": value,
        "observedGeneration": generation,
        "reason": reason,
        "message": message[:32768],
    }
