"""One look at one job: read what the informers have seen, plan, write the plan down, carry it out.

Level-triggered and idempotent: whatever was lost on the way is planned again at the next look.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Final

from msgspec import ValidationError

import backupsync
from backupsync.control import AggregatorStatus
from backupsync.kube import names
from backupsync.launch import control_token
from backupsync.lifecycle import at_rest, plan
from backupsync.lifecycle.plan import OURS
from backupsync.lifecycle.types import JobStatus, Observed, Plan, ReplicaId
from backupsync.spec import BackupSyncJob
from backupsync_operator import observe, refusals
from backupsync_operator.api import Api, NotFound
from backupsync_operator.children import Children
from backupsync_operator.cr import BadSpec, frozen, job_of
from backupsync_operator.cr_status import View
from backupsync_operator.events import Events
from backupsync_operator.hands import Hands
from backupsync_operator.keys import job_key
from backupsync_operator.kinds import JOBS, PODS
from backupsync_operator.metrics import Metrics
from backupsync_operator.poller import Pollers, Target
from backupsync_operator.progress import Progress
from backupsync_operator.queue import Key
from backupsync_operator.record import Record, StatusOvertaken, Writer, generation_of
from backupsync_operator.render import Images, JobContext
from backupsync_operator.settings import Settings
from backupsync_operator.store import Object, Store

RESYNC_SECONDS: Final = 300.0
"""Longest time between two looks at a job that is under way."""
UNEASY_SECONDS: Final = 3.0
"""The same while a pod of it is ending or its node is in doubt: time alone may then change the verdict."""

SOONEST_SECONDS: Final = 0.02
"""Shortest time between two looks that a look itself asks for."""

_log = logging.getLogger(__name__)


class Reconciler:
    """Looks at jobs; one look at a time per job, which the queue sees to."""

    def __init__(
        self,
        settings: Settings,
        api: Api,
        store: Store,
        *,
        operator_key: bytes,
        term: int,
        pollers: Pollers,
        events: Events,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._api, self._store, self._clock = settings, api, store, clock
        self._key, self._term = operator_key, term
        self._pollers, self._events, self._metrics = pollers, events, metrics
        self._writer = Writer(api, clock)
        children = Children(api, store, operator_key)
        self._hands = Hands(api, store, children, pollers, events)
        self._records: dict[Key, Record] = {}
        self.progress = Progress(
            self._write_progress, rate=settings.status_writes_per_second, interval=settings.progress_seconds
        )

    async def look(self, key: Key) -> float | None:
        """Look at a job; return after how many seconds to look again. Raises ApiError, or a bug."""
        resource = self._store.job(key)
        if resource is None or _left_alone(resource):
            self._forget(key)  # the children of a deleted job go by their owner references
            return None
        try:
            return await self._judge(self._record(key, resource), resource)
        except StatusOvertaken as error:
            return await self._start_over(key, error)
        except ValidationError as error:
            _log.error("job %s: status.memory is none of ours, so nothing is done: %s", key, error)
            return RESYNC_SECONDS

    async def _judge(self, record: Record, resource: Object) -> float | None:
        generation = generation_of(resource)
        try:
            job = record.job(resource, job_of)
        except BadSpec as error:
            await self._refuse(record, generation, error)
            return None  # until it is edited
        if generation != record.generation:  # edited: what was refused may now pass
            record.generation, record.rejections, record.rejected_until = generation, (), 0.0
        observed = self._observe(record, job)
        made = plan(job, observed, record.memory, self._clock())
        context = self._context(record, job, made.status)
        await self._write_down(record, made, self._view(record, context, observed, made), observed)
        self._follow(record, made.status, observed)
        self._tell_of_refusals(record, observed.aggregator)
        again = await self._hands.carry_out(record, made, context)
        return _soonest(again, made.requeue_after, self._resync(made.status, observed))

    def _observe(self, record: Record, job: BackupSyncJob) -> Observed:
        answer = self._answer(record)
        pods = self._store.owned(PODS, record.key, record.uid)
        nodes = self._store.nodes if self._settings.cluster_wide else None
        grace = job.spec.run_policy.node_lost_grace_seconds
        place = self._context(record, job, record.memory).place
        return Observed(
            replicas=observe.replicas(pods.values(), answer, nodes, self._clock(), grace),
            aggregator=answer,
            term=self._term,
            pods=True,
            durable=place.durable,
            place=place.message,
            rejections=record.rejections,
        )

    def _answer(self, record: Record) -> AggregatorStatus | None:
        """Poll the aggregator in office while its pod runs, and return its newest answer."""
        epoch, pod = record.memory.aggregator_attempt, self._aggregator(record, record.memory)
        status = {} if pod is None else pod["status"]
        if status.get("phase") == "Running" and status.get("podIP"):
            token = control_token(job_key(self._key, record.uid))
            self._pollers.point(record.key, Target(record.uid, epoch, str(status["podIP"]), token))
        else:
            self._pollers.drop(record.key)  # what it said last is in its pod's own last words
        answer = self._pollers.latest(record.key)
        return answer if answer is not None and answer.epoch == epoch else None

    def _aggregator(self, record: Record, memory: JobStatus) -> Object | None:
        name = names.pod_name(record.key.name, ReplicaId("aggregator", 0, memory.aggregator_attempt))
        return self._store.owned(PODS, record.key, record.uid).get(name)

    def _context(self, record: Record, job: BackupSyncJob, memory: JobStatus) -> JobContext:
        defaults = Images(worker=self._settings.worker_image, aggregator=self._settings.aggregator_image)
        return JobContext(
            job=job,
            namespace=record.key.namespace,
            uid=record.uid,
            images=frozen(job, record.memory, record.base.get("images"), defaults),
            pull_policy=self._settings.image_pull_policy,
            log_format=self._settings.log_format,
            status=memory,
        )

    def _view(self, record: Record, context: JobContext, observed: Observed, made: Plan) -> View:
        pod = self._aggregator(record, made.status)
        conditions = () if pod is None else pod["status"].get("conditions") or ()
        return View(
            job=context.job,
            generation=record.generation,
            replicas=observed.replicas,
            images=context.images,
            operator_version=backupsync.__version__,
            explanation=made.explanation,
            aggregator_ready=any(c["type"] == "Ready" and c["status"] == "True" for c in conditions),
        )

    async def _write_down(self, record: Record, made: Plan, view: View, observed: Observed) -> None:
        """Write the plan down if it is worth it: always before it is acted upon."""
        if record.news(made.status, record.generation):
            await self._writer.write(record, made.status, view)
            self.progress.written(record.key, _now())
            record.memory, record.view = made.status, view
            return
        record.memory, record.view = made.status, view
        if at_rest(made.status, observed):
            await self._writer.write_shown(record)

    def _follow(self, record: Record, memory: JobStatus, observed: Observed) -> None:
        self._metrics.state(record.key, memory.phase)
        if memory.phase in ("Succeeded", "Failed") or at_rest(memory, observed):
            self.progress.drop(record.key)
        else:
            self.progress.follow(record.key, _now())

    def _tell_of_refusals(self, record: Record, answer: AggregatorStatus | None) -> None:
        said, record.refusals = refusals.news(
            answer.refusals if answer is not None else (), record.refusals, self._clock()
        )
        for message in said:
            self._events.announce(record.key, record.uid, "Warning", "PeerRefused", message)

    def _resync(self, memory: JobStatus, observed: Observed) -> float | None:
        if any(replica.stopping or self._in_doubt(replica.node) for replica in observed.replicas):
            return UNEASY_SECONDS
        return None if at_rest(memory, observed) else RESYNC_SECONDS * (0.9 + 0.2 * random.random())

    def _in_doubt(self, node: str) -> bool:
        conditions = (self._store.nodes.get(node) or {}).get("status", {}).get("conditions") or ()
        return any(c["status"] != "True" for c in conditions)

    async def _refuse(self, record: Record, generation: int, error: BadSpec) -> None:
        message = "; ".join(error.problems)
        if await self._writer.refuse(record, generation, "InvalidSpec", message):
            self._events.announce(record.key, record.uid, "Warning", "InvalidSpec", message)
        self._metrics.state(record.key, str(record.base["state"]))

    def _record(self, key: Key, resource: Object) -> Record:
        record = self._records.get(key)
        if record is None or not record.still(resource):
            self._forget(key)
            record = self._records[key] = Record(key, resource)
        return record

    def _forget(self, key: Key) -> None:
        self._records.pop(key, None)
        self._pollers.drop(key)
        self.progress.drop(key)
        self._metrics.state(key, None)

    async def _start_over(self, key: Key, why: Exception) -> float | None:
        """The job on the server is not the one we know: take in what is there now, and look again."""
        _log.info("job %s: starting over: %s", key, why)
        self._records.pop(key, None)
        held = self._store.job(key)
        try:
            self._store.put(JOBS, await self._api.read(JOBS, key.namespace, key.name))
        except NotFound:
            if held is not None:
                self._store.remove(JOBS, held)
            self._forget(key)
            return None
        return 0.1

    async def _write_progress(self, key: Key) -> bool:
        record = self._records.get(key)
        try:
            return record is not None and await self._writer.write_shown(record, self._pollers.latest(key))
        except StatusOvertaken as error:
            await self._start_over(key, error)
            return False


def _left_alone(resource: Object) -> bool:
    """Whether the job is being deleted, or another controller's."""
    policy = (resource.get("spec") or {}).get("runPolicy") or {}
    return "deletionTimestamp" in resource["metadata"] or policy.get("managedBy") not in (None, OURS)


def _soonest(*times: float | None) -> float | None:
    """The earliest of these, but never at once: whatever asks for that must not spin."""
    return min((max(t, SOONEST_SECONDS) for t in times if t is not None), default=None)


def _now() -> float:
    return asyncio.get_running_loop().time()
