"""One active operator, by a Lease: taken when free or expired, renewed while held, fatal when lost.

The client's own election is not used: it names no term, writes local time as UTC, and cannot create its
Lease (kubernetes 37). The term is the Lease's `leaseTransitions`: it rises at every taking, also by the
same holder after a restart, and a Lease made anew starts at the Unix time, so deleting it turns nothing back.
"""

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import Any, Final

from backupsync.errors import BackupSyncError
from backupsync_operator.api import AlreadyExists, Api, ApiError, Conflict, NotFound, Object
from backupsync_operator.kinds import LEASES

RETRY_FRACTION: Final = 1 / 7
"""Pause between two looks at the Lease, in lease durations (client-go: 2 s of 15 s)."""
DEADLINE_FRACTION: Final = 2 / 3
"""Time without a renewal after which the holder gives up, in lease durations (client-go: 10 s of 15 s)."""

_log = logging.getLogger(__name__)


class LeaseLost(BackupSyncError):  # noqa: N818 -- a state
    """Another operator is active, or nobody can say: this process must end at once."""


class Lease:
    """The part of one process in the election."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        name: str,
        identity: str,
        seconds: float,
        pause: float | None = None,
    ) -> None:
        self._api, self._namespace, self._name = api, namespace, name
        self._identity, self._seconds = identity, seconds
        self._pause = seconds * RETRY_FRACTION if pause is None else pause
        self._held: Object | None = None
        self._seen: tuple[Any, float] = (None, 0.0)
        """Last record seen of another holder, and since when by our clock: no clocks are compared."""
        self.renewed_at = 0.0
        """Loop time of the last renewal."""

    @property
    def term(self) -> int:
        """The term of this holder; 0 before it holds."""
        return 0 if self._held is None else int(self._held["spec"]["leaseTransitions"])

    @property
    def held(self) -> bool:
        """Whether this process is the active operator, as far as it knows."""
        return self._held is not None

    async def acquire(self) -> int:
        """Wait until this process is the active operator; return its term, above every earlier one."""
        while not await self._try():  # noqa: ASYNC110 -- the Lease is elsewhere, no event tells of it
            await asyncio.sleep(self._pause)
        _log.info(
            "lease %s/%s: %s is active, term %s", self._namespace, self._name, self._identity, self.term
        )
        return self.term

    async def hold(self) -> None:
        """Renew until cancelled. Raises LeaseLost."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._pause)
            left = self.renewed_at + self._seconds * DEADLINE_FRACTION - loop.time()
            try:
                async with asyncio.timeout(max(0.0, left)):
                    await self._renew()
            except TimeoutError:
                self._held = None
                raise LeaseLost(f"lease {self._name}: not renewed in time: another may be active") from None

    async def release(self) -> None:
        """Let a standby take over at once, as far as the API server can be reached."""
        held, self._held = self._held, None
        if held is None:
            return
        held["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
        try:
            async with asyncio.timeout(self._seconds * RETRY_FRACTION):
                await self._api.replace(LEASES, self._namespace, held)
        except (ApiError, TimeoutError) as error:
            _log.warning("lease %s: not released: %s", self._name, error)

    async def _try(self) -> bool:
        try:
            lease = await self._api.read(LEASES, self._namespace, self._name)
        except NotFound:
            return await self._take(None, int(time.time()))
        except ApiError as error:
            _log.warning("lease %s: %s", self._name, error)
            return False
        spec = lease.get("spec") or {}
        if not self._free(spec):
            return False
        # An empty Lease that somebody made beforehand starts at the Unix time, too.
        return await self._take(lease, int(spec.get("leaseTransitions") or int(time.time())) + 1)

    def _free(self, spec: Object) -> bool:
        holder = spec.get("holderIdentity")
        if not holder or holder == self._identity:  # nobody's, or ours before a restart
            return True
        now = asyncio.get_running_loop().time()
        record = (holder, spec.get("leaseTransitions"), spec.get("renewTime"))
        if record != self._seen[0]:
            self._seen = (record, now)
        return now > self._seen[1] + float(spec.get("leaseDurationSeconds") or self._seconds)

    async def _take(self, lease: Object | None, transitions: int) -> bool:
        sent = asyncio.get_running_loop().time()
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._seconds)),
            "acquireTime": _now(),
            "renewTime": _now(),
            "leaseTransitions": transitions,
        }
        body = {**(lease or _empty(self._name)), "spec": spec}
        try:
            if lease is None:
                self._held = await self._api.create(LEASES, self._namespace, body)
            else:
                self._held = await self._api.replace(LEASES, self._namespace, body)
        except (AlreadyExists, Conflict):
            return False  # somebody was faster
        except ApiError as error:
            _log.warning("lease %s: %s", self._name, error)
            return False
        self.renewed_at = sent
        return True

    async def _renew(self) -> None:
        """Renew, as often as it takes. Raises LeaseLost where another has taken over."""
        assert self._held is not None
        loop = asyncio.get_running_loop()
        while True:
            sent = loop.time()
            body = {**self._held, "spec": {**self._held["spec"], "renewTime": _now()}}
            try:
                self._held = await self._api.replace(LEASES, self._namespace, body)
            except (Conflict, NotFound) as error:
                await self._look(error)
            except ApiError as error:
                _log.warning("lease %s: not renewed yet: %s", self._name, error)
                await asyncio.sleep(min(1.0, self._pause))
            else:
                self.renewed_at = sent
                return

    async def _look(self, cause: ApiError) -> None:
        """The Lease is not as we left it: go on if it is ours all the same (an answer was lost)."""
        assert self._held is not None
        try:
            lease = await self._api.read(LEASES, self._namespace, self._name)
        except NotFound:
            lease = {}
        except ApiError:
            return
        spec, ours = lease.get("spec") or {}, self._held["spec"]
        if any(spec.get(field) != ours[field] for field in ("holderIdentity", "leaseTransitions")):
            holder = spec.get("holderIdentity") or "nobody"
            self._held = None
            raise LeaseLost(f"lease {self._name}: {holder} holds it now: {cause}")
        self._held = lease


def _empty(name: str) -> Object:
    return {"apiVersion": LEASES.api_version, "kind": "Lease", "metadata": {"name": name}}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
