"""The objects of a job beside its pods, brought in line with what is wanted; and the one way pods come to be.

Everything has a deterministic name, so creating it again is a no-op; what already bears the name is taken
only if it is the job's own.
"""

import asyncio
from collections.abc import Iterable
from typing import Final

from backupsync.kube import names
from backupsync.lifecycle.types import JobStatus, Rejection, ReplicaId
from backupsync_operator import render
from backupsync_operator.api import AlreadyExists, Api, Conflict, Invalid, NotFound, Object
from backupsync_operator.cr_status import difference
from backupsync_operator.keys import job_key
from backupsync_operator.kinds import BUDGETS, CLAIMS, PODS, SECRETS, Kind, kind_of
from backupsync_operator.record import Record
from backupsync_operator.store import Store, owned_by

SECRET_SECONDS: Final = 600.0
"""How long the key's Secret is trusted to be there: it may not be read, so it is made again to find out."""
STARTING_SECONDS: Final = 60.0
"""The same while pods are starting and nobody says why they have not: that is how a missing Secret looks."""
AT_ONCE: Final = 8
"""Pods of one job created, or deleted, at the same time."""


class NameTaken(Invalid):
    """An object that is not the job's bears the name of one of its own."""


class Children:
    """Creates, changes and deletes the children of jobs."""

    def __init__(self, api: Api, store: Store, operator_key: bytes) -> None:
        self._api, self._store, self._key = api, store, operator_key

    async def prepare(self, record: Record, context: render.JobContext, memory: JobStatus) -> None:
        """Have Service, claim and budget as a running job wants them. Raises ApiError."""
        budget = render.budget(context)
        wanted = (render.claim(context), render.service(context, memory.aggregator_attempt), budget)
        # Side by side: none needs another, and each waits for the API server alone.
        steps = [self._bring_about(record, body) for body in wanted if body is not None]
        if budget is None:
            steps.append(self.drop_budget(record))
        for failure in await asyncio.gather(*steps, return_exceptions=True):
            if isinstance(failure, BaseException):
                raise failure

    async def drop_budget(self, record: Record) -> None:
        """Delete the PodDisruptionBudget, if there is one. Raises ApiError."""
        held = self._store.owned(BUDGETS, record.key, record.uid).get(names.budget_name(record.key.name))
        if held is not None and "deletionTimestamp" not in held["metadata"]:
            await self.delete(BUDGETS, held)

    async def start(
        self, record: Record, context: render.JobContext, replicas: Iterable[ReplicaId]
    ) -> tuple[Rejection, ...]:
        """Create these pods, in their order, up to those that the API server refuses; return why it does.

        Raises ApiError for a failure that may pass.
        """
        await self._see_to_secret(record, context, SECRET_SECONDS)
        # After a refusal one pod alone is tried, not a volley.
        gate = asyncio.Semaphore(1 if record.rejected else AT_ONCE)
        refused: list[Rejection] = []

        async def one(replica: ReplicaId) -> None:
            async with gate:
                if not refused:
                    try:
                        await self._create(record, render.pod(context, replica))
                    except Invalid as error:
                        refused.append(rejection(error, replica))

        results = await asyncio.gather(*map(one, replicas), return_exceptions=True)
        for failure in results:
            if isinstance(failure, BaseException) and not refused:
                raise failure
        return tuple(refused)

    async def see_to_starting(self, record: Record, context: render.JobContext) -> None:
        """Have what pods that are starting may be waiting for. Raises ApiError."""
        await self._see_to_secret(record, context, STARTING_SECONDS)

    async def _see_to_secret(self, record: Record, context: render.JobContext, trust_seconds: float) -> None:
        """Have the key's Secret, which nobody may read: made again where it was not seen to for so long."""
        now = asyncio.get_running_loop().time()
        if record.secret_at is None and self._store.owned(PODS, record.key, record.uid):
            record.secret_at = now
        if record.secret_at is None or now > record.secret_at + trust_seconds:
            await self._create(record, render.secret(context, job_key(self._key, record.uid).hex()))
            record.secret_at = now

    async def delete(self, kind: Kind, held: Object, grace_seconds: float | None = None) -> None:
        """Delete an object that the store holds; gone is gone. Raises ApiError."""
        meta = held["metadata"]
        try:
            answer = await self._api.delete(
                kind, meta["namespace"], meta["name"], uid=meta["uid"], grace_seconds=grace_seconds
            )
        except (NotFound, Conflict):
            self._store.remove(kind, held)
            return
        left = answer.get("metadata") or {}
        if left.get("uid") == meta["uid"] and left.get("deletionTimestamp") and grace_seconds != 0:
            self._store.put(kind, answer)
        elif not (meta.get("finalizers") or left.get("finalizers")):
            self._store.remove(kind, held)

    async def _bring_about(self, record: Record, body: Object) -> None:
        kind, name = kind_of(body), body["metadata"]["name"]
        held = self._store.children(kind, record.key).get(name)
        if held is None or not _ours(kind, held, record):
            await self._create(record, body)
            return
        patch = difference(_mutable(held["spec"]), _mutable(body["spec"]))
        if patch is None:
            return
        try:
            self._store.put(kind, await self._api.patch(kind, record.key.namespace, name, {"spec": patch}))
        except NotFound:  # deleted a moment ago
            self._store.remove(kind, held)
            await self._create(record, body)

    async def _create(self, record: Record, body: Object) -> None:
        kind, name, namespace = kind_of(body), body["metadata"]["name"], record.key.namespace
        try:
            made = await self._api.create(kind, namespace, body)
        except AlreadyExists:
            if kind is SECRETS:  # is never read; a stranger's key only keeps the workers out
                return
            made = await self._api.read(kind, namespace, name)
            if not _ours(kind, made, record):
                raise NameTaken(409, "NameTaken", _taken(kind, made)) from None
        if kind is not SECRETS:
            self._store.put(kind, made)


def rejection(error: Invalid, replica: ReplicaId | None = None) -> Rejection:
    """What to tell the planner of a refused creation."""
    reason = error.reason if error.code in (403, 409) and error.reason else "Invalid"
    return Rejection(replica=replica, reason=reason, message=str(error))


def _mutable(spec: Object) -> Object:
    """What of a Service's or budget's spec ever changes; of the rest the server fills in some."""
    return {field: spec[field] for field in ("selector", "minAvailable") if field in spec}


def _ours(kind: Kind, held: Object, record: Record) -> bool:
    labels = held["metadata"].get("labels") or {}
    if kind is CLAIMS:  # retained from an earlier job of the same name: this one's checkpoints lie beside it
        return bool(labels.get(names.JOB_LABEL) == record.key.name)
    return owned_by(held, record.uid)


def _taken(kind: Kind, held: Object) -> str:
    meta = held["metadata"]
    owner = next((f"{o['kind']} {o['name']}" for o in meta.get("ownerReferences") or []), "nobody")
    going = " and is being deleted" if "deletionTimestamp" in meta else ""
    return (
        f"{held.get('kind', kind.plural)} {meta['name']} is there already and belongs to {owner}, not to "
        f"this job{going}: delete it, or give the job another name"
    )
