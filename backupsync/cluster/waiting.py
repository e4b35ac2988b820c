"""Waiting for a job: a watch that outlasts the API server, and what it means to have arrived."""

import json
import time
from collections.abc import Iterator
from typing import Final, Literal, get_args

from backupsync.cluster import paths
from backupsync.cluster.connection import Connection, Object
from backupsync.cluster.errors import Ended, NotFound, NotInstalled, Unreachable
from backupsync.cluster.types import Job

Until = Literal["accepted", "running", "suspended", "succeeded", "failed", "finished", "deleted"]
UNTIL: Final[tuple[Until, ...]] = get_args(Until)

_WATCH_SECONDS: Final = 240.0
"""Length of one watch: shorter than what load balancers in between put up with."""
_PATIENCE_SECONDS: Final = 120.0
"""How long the API server may be silent altogether before waiting is given up."""
_PAUSE_SECONDS: Final = 1.0


def verdict(until: Until, job: Job | None, *, gone: bool) -> bool:
    """Whether what is waited for has come; raises Ended where it no longer can.

    What a job has passed counts as reached: a job that succeeded has been running.
    """
    if until == "deleted":
        return gone
    if gone or job is None:
        raise Ended(f"job {job.name if job else ''}: was deleted, so it will not be {until}")
    if until == job.state.lower() or (until == "finished" and job.finished):
        return True
    accepted = job.condition("Accepted")
    judged = job.observed_generation >= job.generation
    if accepted is not None and accepted.status == "False" and job.state == "Pending" and judged:
        raise Ended(
            f"job {job.name}: is not accepted, and will not be {until} before somebody edits it: "
            f"{accepted.reason}: {accepted.message}"
        )
    if until == "accepted":
        return (accepted is not None and accepted.status == "True") or job.state != "Pending"
    if until == "running" and job.state == "Succeeded":
        return True
    suspension = job.condition("Suspended")
    if until == "suspended" and suspension is not None and suspension.reason == "SuspendRefused":
        raise Ended(f"job {job.name}: will not be suspended: {suspension.message}")
    if job.finished:
        raise Ended(f"job {job.name}: {job.state}, so it will not be {until}{why(job)}")
    return False


def why(job: Job) -> str:
    """Return the reason of a failure, in words."""
    failed = job.condition("Failed")
    if failed is None or failed.status != "True":
        return ""
    return f": {failed.reason}: {failed.message}"


def changes(connection: Connection, name: str, deadline: float | None) -> Iterator[Object | None]:
    """Yield the job's object at once and at each change, and None when it is not there; ends at `deadline`.

    An interrupted watch begins anew with a read. Raises Unreachable after two silent minutes.
    """
    answered = time.monotonic()
    while True:
        try:
            current = _read(connection, name)
            answered = time.monotonic()
            yield current
            version = str(current["metadata"]["resourceVersion"]) if current else None
            for changed in _watch(connection, name, version, deadline):
                yield changed
                answered = time.monotonic()
        except Unreachable:
            if time.monotonic() - answered > _PATIENCE_SECONDS:
                raise
        left = _PAUSE_SECONDS if deadline is None else deadline - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(_PAUSE_SECONDS, left))


def _read(connection: Connection, name: str) -> Object | None:
    path = paths.jobs(connection.namespace, name)
    try:
        return connection.request("GET", path, f"job {name} in namespace {connection.namespace}")
    except NotInstalled:
        raise
    except NotFound:
        return None


def _watch(
    connection: Connection, name: str, version: str | None, deadline: float | None
) -> Iterator[Object | None]:
    """Yield what one watch tells; its end, or an error event (410 Gone), is the caller's cue to read anew."""
    left = _WATCH_SECONDS if deadline is None else min(_WATCH_SECONDS, deadline - time.monotonic())
    if left <= 0:
        return
    query = [
        ("watch", "true"),
        ("fieldSelector", f"metadata.name={name}"),
        ("timeoutSeconds", str(max(1, int(left)))),
    ]
    if version is not None:
        query.append(("resourceVersion", version))
    path = paths.jobs(connection.namespace)
    silence = left + 5.0
    with connection.stream(path, f"job {name}", query=query, silence=silence) as lines:
        for line in lines:
            told = json.loads(line)
            if told["type"] == "ERROR":
                return
            if told["type"] == "DELETED":
                yield None
            elif told["type"] in ("ADDED", "MODIFIED"):
                found: Object = told["object"]
                yield found
