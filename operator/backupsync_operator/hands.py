"""Carrying out a plan on the cluster: each action an API call or none, no failure keeping another back."""

import asyncio
import logging
from typing import Final

from backupsync.kube import names
from backupsync.lifecycle.types import Action, Announce, Delete, JobStatus, Plan, Replica, Start, Stop, Tell
from backupsync_operator.api import Api, ApiError
from backupsync_operator.children import Children, NameTaken
from backupsync_operator.events import Events
from backupsync_operator.kinds import JOBS, PODS
from backupsync_operator.poller import Pollers
from backupsync_operator.record import Problem, Record, Writer
from backupsync_operator.render import JobContext
from backupsync_operator.store import Store

LONGEST_REJECTION_SECONDS: Final = 60.0
"""Longest pause after the API server refused a pod: a quota may be raised, a policy changed."""

_log = logging.getLogger(__name__)


class Hands:
    """What the plans of all jobs are carried out with."""

    def __init__(
        self, api: Api, store: Store, children: Children, pollers: Pollers, events: Events, writer: Writer
    ) -> None:
        self._api, self._store, self._children = api, store, children
        self._pollers, self._events, self._writer = pollers, events, writer

    async def carry_out(
        self, record: Record, made: Plan, context: JobContext, replicas: tuple[Replica, ...]
    ) -> float | None:
        """Do what was planned; return after how many seconds to try what was refused again, if anything was.

        Raises the first ApiError once everything was tried, but creates no pod after one.
        """
        steps = [self._act(record, action) for action in made.actions if not isinstance(action, Start)]
        steps.append(self._house(record, made.status, context, replicas))
        failures: list[ApiError] = []
        for step in steps:
            try:
                await step
            except ApiError as error:
                failures.append(error)
        taken = [failure for failure in failures if isinstance(failure, NameTaken)]
        if len(failures) > len(taken):
            raise next(failure for failure in failures if failure not in taken)
        if taken:
            return await self._rejected(record, Problem("NameTaken", str(taken[0])))
        return await self._start(record, made, context)

    async def _act(self, record: Record, action: Action) -> None:
        match action:
            case Stop():
                await self._stop(record, action)
            case Tell(desired, _):
                self._pollers.tell(record.key, desired)
            case Announce(kind, reason, message):
                _log.info("job %s: %s: %s", record.key, reason, message)
                self._events.announce(record.key, record.uid, kind, reason, message)
            case Delete(reason):
                _log.info("job %s is deleted: %s", record.key, reason)
                await self._api.delete(JOBS, record.key.namespace, record.key.name, uid=record.uid)

    async def _stop(self, record: Record, action: Stop) -> None:
        name = names.pod_name(record.key.name, action.replica)
        held = self._store.owned(PODS, record.key, record.uid).get(name)
        if held is None:
            return
        _log.info("job %s: stop %s: %s", record.key, name, action.reason)
        # The pod's own grace, or the shortest that waits for its kubelet; by force from lost nodes only.
        grace = 0.0 if action.force else 1.0 if action.grace_seconds <= 0 else None
        await self._children.delete(PODS, held, grace)

    async def _house(
        self, record: Record, memory: JobStatus, context: JobContext, replicas: tuple[Replica, ...]
    ) -> None:
        """Have the objects beside the pods as the job's phase wants them."""
        if memory.phase in ("Pending", "Running") and memory.aggregator_attempt:
            await self._children.prepare(record, context, memory)
            return
        await self._children.drop_budget(record)
        if memory.phase == "Suspended":  # no pods while suspended, not even finished ones
            for replica in replicas:
                if replica.phase == "Exited" and not replica.stopping:
                    await self._stop(record, Stop(replica.id, "the job is suspended", 0.0))

    async def _start(self, record: Record, made: Plan, context: JobContext) -> float | None:
        starts = [action for action in made.actions if isinstance(action, Start)]
        if not starts:
            return None
        if (wait := record.rejected_until - _now()) > 0:
            return wait
        for action in starts:
            _log.info("job %s: start %s: %s", record.key, _name(record, action), action.reason)
        problem = await self._children.start(record, context, [action.replica for action in starts])
        if problem is not None:
            return await self._rejected(record, problem)
        record.rejections = 0
        if record.problem is not None:
            await self._tell(record, None)
        return None

    async def _rejected(self, record: Record, problem: Problem) -> float:
        record.rejections += 1
        pause = min(LONGEST_REJECTION_SECONDS, 2.0**record.rejections)
        record.rejected_until = _now() + pause
        if problem != record.problem:
            _log.warning("job %s: %s: %s", record.key, problem.reason, problem.message)
            self._events.announce(record.key, record.uid, "Warning", problem.reason, problem.message)
            await self._tell(record, problem)
        return pause

    async def _tell(self, record: Record, problem: Problem | None) -> None:
        assert record.view is not None
        await self._writer.write(record, record.memory, record.view, problem)


def _name(record: Record, action: Start) -> str:
    return names.pod_name(record.key.name, action.replica)


def _now() -> float:
    return asyncio.get_running_loop().time()
