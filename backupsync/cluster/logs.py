"""Logs of a job's pods: of one, or of all merged; followed across pods that come, go and are replaced.

One mechanism for one pod and for many: whoever follows looks every second which pods there are, and reads
each new one in a thread of its own, from its first line to its container's end.
"""

import heapq
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Final

from msgspec import Struct

from backupsync.cluster import paths
from backupsync.cluster.connection import Connection
from backupsync.cluster.errors import ClusterError, Invalid, NotFound, Unreachable
from backupsync.cluster.pods import Pod, list_pods, state_of
from backupsync.cluster.types import Job, LogLine, job_of
from backupsync.lifecycle.types import ReplicaId, Role

MAX_FOLLOWED: Final = 64
"""Most pods that are followed at once: each takes a connection."""
_LOOK_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = 120.0

Key = tuple[Role, int]


class Selection(Struct, frozen=True, kw_only=True):
    """Whose logs."""

    role: Role | None = None
    rank: int | None = None
    attempt: int | None = None
    previous: bool = False

    def takes(self, replica: ReplicaId) -> bool:
        """Whether a pod is among those asked for, attempts aside."""
        return self.role in (None, replica.role) and (self.rank is None or self.rank == replica.rank)

    def __str__(self) -> str:
        who = f"worker {self.rank}" if self.rank is not None else self.role or "anyone"
        return f"{who} (attempt {self.attempt})" if self.attempt is not None else who


def chosen(pods: list[tuple[ReplicaId, Pod]], wanted: Selection) -> list[tuple[ReplicaId, Pod]]:
    """Return, of the pods of a job in order, those to read: one attempt of each rank."""
    ranks: dict[Key, list[tuple[ReplicaId, Pod]]] = {}
    for replica, pod in pods:
        if wanted.takes(replica):
            ranks.setdefault((replica.role, replica.rank), []).append((replica, pod))
    if wanted.attempt is not None:
        return [item for group in ranks.values() for item in group if item[0].attempt == wanted.attempt]
    index = -2 if wanted.previous else -1
    return [group[index] for group in ranks.values() if len(group) >= -index]


def fresh(
    pods: list[tuple[ReplicaId, Pod]], wanted: Selection, read: Mapping[Key, int]
) -> list[tuple[ReplicaId, Pod]]:
    """Return the pods to begin with now; `read` has the newest attempt of each rank that is read already.

    Of a rank that is not read yet the one that `chosen` says; of the others every later attempt.
    """
    first = [item for item in chosen(pods, wanted) if _key(item[0]) not in read]
    if wanted.attempt is not None:
        return first
    later = [(r, p) for r, p in pods if wanted.takes(r) and r.attempt > read.get(_key(r), r.attempt)]
    return first + later


def read_logs(connection: Connection, job: Job, wanted: Selection) -> Iterator[LogLine]:
    """Yield what there is, merged by time. Raises NotFound, naming what could be read instead."""
    pods = list_pods(connection, job.namespace, job.name)
    found = [(r, p) for r, p in chosen(pods, wanted) if state_of(r, p).begun]
    if not found:
        raise NotFound(_nothing(job, pods, wanted))
    if len(found) > MAX_FOLLOWED:
        raise _too_many(job)
    with ExitStack() as stack:
        streams = [
            (stack.enter_context(_log(connection, replica, pod, follow=False, since="")), replica, pod)
            for replica, pod in found
        ]
        lines = [_lines(replica, pod, stream) for stream, replica, pod in streams]
        yield from heapq.merge(*lines, key=lambda line: line.time)


def follow_logs(connection: Connection, job: Job, wanted: Selection) -> Iterator[LogLine]:
    """Yield lines as they come, until the job is over and every pod's log is read. See `Client.logs`."""
    follower = _Follower(connection, job, wanted)
    try:
        yield from follower.lines()
    finally:
        follower.stop()


class _Follower:
    """Reader threads, one per pod, and the queue they fill."""

    def __init__(self, connection: Connection, job: Job, wanted: Selection) -> None:
        self._connection, self._job, self._wanted = connection, job, wanted
        self._lines: queue.Queue[LogLine | ClusterError] = queue.Queue(maxsize=10_000)
        self._readers: list[threading.Thread] = []
        self._read: dict[Key, int] = {}
        self._latest: dict[str, tuple[ReplicaId, Pod]] = {}
        """Pods by name, as last seen: replaced whole, so that readers need no lock."""
        self._stopping = threading.Event()
        self._answered = time.monotonic()

    def stop(self) -> None:
        """Let the readers go: they are daemons, and end with their next line."""
        self._stopping.set()

    def lines(self) -> Iterator[LogLine]:
        """Yield lines until nothing more can come."""
        looked, over = -_LOOK_SECONDS, False
        while True:
            if time.monotonic() - looked >= _LOOK_SECONDS:
                over, looked = self._look(), time.monotonic()
            idle = over and not any(reader.is_alive() for reader in self._readers)
            try:
                item = self._lines.get(timeout=0.1)
            except queue.Empty:
                if idle:
                    return
                continue
            if isinstance(item, ClusterError):
                raise item
            yield item

    def _look(self) -> bool:
        """Start a reader for each new pod; return whether no more will come."""
        job = self._job
        try:
            over = self._is_over()
            pods = list_pods(self._connection, job.namespace, job.name)
        except Unreachable:
            if time.monotonic() - self._answered > _PATIENCE_SECONDS:
                raise
            return False
        self._answered = time.monotonic()
        self._latest = {pod["metadata"]["name"]: (replica, pod) for replica, pod in pods}
        for replica, pod in fresh(pods, self._wanted, self._read):
            self._begin(replica, pod)
        return over or (self._wanted.attempt is not None and bool(self._read))

    def _is_over(self) -> bool:
        """Whether the job has ended, or is gone. Asked before its pods are: so none of them is missed."""
        path = paths.jobs(self._job.namespace, self._job.name)
        try:
            now = job_of(self._connection.request("GET", path, f"job {self._job.name}"))
        except NotFound:
            return True
        return now.finished or now.uid != self._job.uid

    def _begin(self, replica: ReplicaId, pod: Pod) -> None:
        if sum(reader.is_alive() for reader in self._readers) >= MAX_FOLLOWED:
            raise _too_many(self._job)
        self._read[_key(replica)] = replica.attempt
        name = pod["metadata"]["name"]
        reader = threading.Thread(
            target=self._follow, args=(name, replica), daemon=True, name=f"log of {name}"
        )
        self._readers.append(reader)
        reader.start()

    def _follow(self, name: str, replica: ReplicaId) -> None:
        """Read one pod's log to its end, across cut connections; no line is told twice."""
        since = ""
        try:
            while not self._stopping.is_set():
                found = self._latest.get(name)
                if found is None:
                    return
                state = state_of(*found)
                if state.begun:
                    since = self._read_on(replica, found[1], since)
                if state.ended:
                    return
                self._stopping.wait(_LOOK_SECONDS / 2)
        except NotFound:
            return
        except ClusterError as error:
            self._lines.put(error)

    def _read_on(self, replica: ReplicaId, pod: Pod, since: str) -> str:
        """Read until the stream ends; return the time of the last line."""
        seen = since
        try:
            with _log(self._connection, replica, pod, follow=True, since=since) as stream:
                for line in _lines(replica, pod, stream):
                    if line.time > since:
                        self._lines.put(line)
                        seen = line.time
                    if self._stopping.is_set():
                        break
        except (Unreachable, Invalid):
            return seen  # cut off, or its container is not there yet: the next look tells
        return seen


def _key(replica: ReplicaId) -> Key:
    return replica.role, replica.rank


def _log(
    connection: Connection, replica: ReplicaId, pod: Pod, *, follow: bool, since: str
) -> AbstractContextManager[Iterator[bytes]]:
    meta = pod["metadata"]
    query = [("container", replica.role), ("timestamps", "true")]
    query += [("follow", "true")] if follow else []
    query += [("sinceTime", since)] if since else []
    path = paths.core(meta["namespace"], "pods", meta["name"], "log")
    # While a program is silent so is its log: only TCP's keepalive tells a quiet pod from a cut connection.
    return connection.stream(path, f"log of pod {meta['name']}", query=query, silence=None)


def _lines(replica: ReplicaId, pod: Pod, stream: Iterator[bytes]) -> Iterator[LogLine]:
    for raw in stream:
        moment, _, text = raw.decode("utf-8", "replace").partition(" ")
        yield LogLine(
            pod=pod["metadata"]["name"],
            role=replica.role,
            rank=replica.rank,
            attempt=replica.attempt,
            time=moment,
            text=text.rstrip("\r"),
        )


def _nothing(job: Job, pods: list[tuple[ReplicaId, Pod]], wanted: Selection) -> str:
    waiting = [f"{p['metadata']['name']} is {state_of(r, p).phase}" for r, p in chosen(pods, wanted)]
    there = [p["metadata"]["name"] for r, p in pods if state_of(r, p).begun]
    which = f"the attempt before the newest of {wanted}" if wanted.previous else str(wanted)
    said = "; ".join(waiting[:3]) or ("there is no such pod" if pods else "there is no pod")
    remedy = "spec.runPolicy.cleanPodPolicy: None keeps pods" if job.finished else "--follow waits for it"
    logs = f"; pods with a log: {', '.join(there[:8])}{' …' if len(there) > 8 else ''}" if there else ""
    return f"job {job.name} ({job.state}): no log of {which}: {said}{logs}; {remedy}"


def _too_many(job: Job) -> Invalid:
    return Invalid(
        f"job {job.name}: has more than {MAX_FOLLOWED} pods to read at once; "
        "name one by --rank R or --aggregator"
    )
