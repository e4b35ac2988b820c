"""Carrying out a plan on the cluster: each action an API call or none, no failure keeping another back."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Final

from backupsync.kube import names
from backupsync.lifecycle.types import (
    Action,
    Announce,
    Delete,
    JobStatus,
    Plan,
    Rejection,
    Start,
    Stop,
    Tell,
)
from backupsync_operator.api import Api, ApiError, Invalid
from backupsync_operator.children import AT_ONCE, Children, rejection
from backupsync_operator.events import Events
from backupsync_operator.kinds import JOBS, PODS
from backupsync_operator.poller import Pollers
from backupsync_operator.record import Record
from backupsync_operator.render import JobContext
from backupsync_operator.store import Store

LONGEST_REJECTION_SECONDS: Final = 60.0
"""Longest pause after the API server refused a pod: a quota may be raised, a policy changed."""

_log = logging.getLogger(__name__)


class Hands:
    """What the plans of all jobs are carried out with."""

    def __init__(self, api: Api, store: Store, children: Children, pollers: Pollers, events: Events) -> None:
        self._api, self._store, self._children = api, store, children
        self._pollers, self._events = pollers, events

    async def carry_out(self, record: Record, made: Plan, context: JobContext) -> float | None:
        """Do what was planned; return after how many seconds to try what was refused again, if anything was.

        Raises the first ApiError once everything was tried, but creates no pod after one.
        """
        failures: list[ApiError] = []
        for action in made.actions:
            if not isinstance(action, Start | Stop):
                await _try(self._act(record, action), failures)
        gate = asyncio.Semaphore(AT_ONCE)
        stops = (action for action in made.actions if isinstance(action, Stop))
        await asyncio.gather(*(_try(self._stop(record, action, gate), failures) for action in stops))
        waiting = record.rejected_until - _now()
        if waiting <= 0:
            await _try(self._house(record, made.status, context), failures)
        refused = tuple(rejection(f) for f in failures if isinstance(f, Invalid))
        if len(refused) < len(failures):
            raise next(failure for failure in failures if not isinstance(failure, Invalid))
        starts = [action for action in made.actions if isinstance(action, Start)]
        if waiting > 0:
            return waiting
        if starts and not refused:
            refused = await self._start(record, context, starts)
        return self._remember(record, refused)

    async def _act(self, record: Record, action: Action) -> None:
        match action:
            case Tell(desired, _):
                self._pollers.tell(record.key, desired)
            case Announce(kind, reason, message):
                _log.info("job %s: %s: %s", record.key, reason, message)
                self._events.announce(record.key, record.uid, kind, reason, message)
            case Delete(reason):
                _log.info("job %s is deleted: %s", record.key, reason)
                await self._api.delete(JOBS, record.key.namespace, record.key.name, uid=record.uid)

    async def _stop(self, record: Record, action: Stop, gate: asyncio.Semaphore) -> None:
        name = names.pod_name(record.key.name, action.replica)
        held = self._store.owned(PODS, record.key, record.uid).get(name)
        if held is None:
            return
        _log.info("job %s: stop %s: %s", record.key, name, action.reason)
        # The pod's own grace, or the shortest that waits for its kubelet; by force from lost nodes only.
        grace = 0.0 if action.force else 1.0 if action.grace_seconds <= 0 else None
        async with gate:
            await self._children.delete(PODS, held, grace)

    async def _house(self, record: Record, memory: JobStatus, context: JobContext) -> None:
        """Have the objects beside the pods as the job's phase wants them."""
        if memory.phase in ("Pending", "Running") and memory.aggregator_attempt:
            await self._children.prepare(record, context, memory)
            replicas = record.view.replicas if record.view is not None else ()
            if any(replica.phase == "Pending" and not replica.reason for replica in replicas):
                await self._children.see_to_starting(record, context)
        else:
            await self._children.drop_budget(record)

    async def _start(self, record: Record, context: JobContext, starts: list[Start]) -> tuple[Rejection, ...]:
        for action in starts:
            _log.info("job %s: start %s: %s", record.key, _name(record, action), action.reason)
        return await self._children.start(record, context, [action.replica for action in starts])

    def _remember(self, record: Record, refused: tuple[Rejection, ...]) -> float | None:
        """Keep in mind what was refused; return the pause, none where the planner is to tell people."""
        news, record.rejections = refused != record.rejections, refused
        if not refused:
            record.rejected = 0
            return 0.0 if news else None
        record.rejected += 1
        pause = min(LONGEST_REJECTION_SECONDS, 2.0**record.rejected)
        record.rejected_until = _now() + pause
        for one in refused if news else ():
            _log.warning("job %s: %s: %s", record.key, one.reason, one.message)
        return 0.0 if news else pause


async def _try(step: Coroutine[None, None, None], failures: list[ApiError]) -> None:
    try:
        await step
    except ApiError as error:
        failures.append(error)


def _name(record: Record, action: Start) -> str:
    return names.pod_name(record.key.name, action.replica)


def _now() -> float:
    return asyncio.get_running_loop().time()
