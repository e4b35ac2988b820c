"""From `kubectl apply` to the first iteration: when each phase was over, as whoever watches sees it.

Everything runs on one machine, so there is one clock. Pods and job are watched by kubectl; how many workers
have joined and the first iteration are asked of the aggregator 20 times a second, through the API server.
"""

import json
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from place import Place

from backupsync.kube import names
from support.api import name_of
from support.job import Job

PHASES: Final = ("accepted", "created", "scheduled", "started", "joined", "first iteration")
TEXT: Final = {
    "accepted": "apply → accepted",
    "created": "→ all pods created",
    "scheduled": "→ all pods scheduled",
    "started": "→ aggregator and N workers started",
    "joined": "→ N workers joined",
    "first iteration": "→ first iteration",
}

Object = dict[str, Any]


class Watch:
    """What `kubectl get --watch` shows of a kind of object, each version with the time it was read."""

    def __init__(self, place: Place, namespace: str, resource: str) -> None:
        command = place.kubectl("get", resource, "-n", namespace, "--watch", "-o", "json")
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.seen: list[tuple[float, Object]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        lines: list[str] = []
        for line in self._process.stdout:
            lines.append(line)
            if line == "}\n":  # the end of one: what is inside is indented
                self.seen.append((time.time(), json.loads("".join(lines))))
                lines.clear()

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()
        self._thread.join(5)

    def nth(self, count: int, fits: Callable[[Object], object]) -> float | None:
        """When `count` different objects had once shown what fits; None while they have not."""
        found_names: set[str] = set()
        for at, found in list(self.seen):
            if fits(found):
                found_names.add(name_of(found))
                if len(found_names) >= count:
                    return at
        return None


def measure(place: Place, job: Job, manifest: dict[str, Any], deadline: float = 180.0) -> dict[str, float]:
    """Create the job and return the seconds that each phase took, and `running`: when its status said so."""
    aggregation = manifest["spec"]["aggregation"]
    needed, total = aggregation["workers"], aggregation["workers"] + aggregation.get("backupWorkers", 0)
    pods = Watch(place, job.namespace, "pods")
    jobs = Watch(place, job.namespace, "backupsyncjobs")
    time.sleep(1.0)  # both watches are up
    try:
        began = time.time()
        job.create(manifest)
        joined, first = _ask(job, needed, began + deadline)
        running = _until(lambda: jobs.nth(1, _runs), began + deadline)
        ends = [
            jobs.nth(1, _holds("Accepted")),
            pods.nth(total + 1, bool),
            pods.nth(total + 1, _holds("PodScheduled")),
            _started(pods, needed),
            joined,
            first,
        ]
    finally:
        pods.close()
        jobs.close()
    assert None not in ends, dict(zip(PHASES, ends, strict=True))
    return {**_split(began, [end for end in ends if end is not None]), "running": running - began}


def _holds(condition: str) -> Callable[[Object], bool]:
    def holds(found: Object) -> bool:
        told = found.get("status", {}).get("conditions") or ()
        return any(c["type"] == condition and c["status"] == "True" for c in told)

    return holds


def _runs(found: Object) -> bool:
    return bool(found.get("status", {}).get("state") == "Running")


def _started(pods: Watch, needed: int) -> float | None:
    """When the aggregator and N workers had started."""

    def up(role: str) -> Callable[[Object], bool]:
        def started(found: Object) -> bool:
            told = found.get("status", {}).get("containerStatuses") or ()
            mine = found["metadata"]["labels"][names.ROLE_LABEL] == role
            return mine and any("running" in (c.get("state") or {}) for c in told)

        return started

    ends = pods.nth(1, up("aggregator")), pods.nth(needed, up("worker"))
    return max((end for end in ends if end is not None), default=None)


def _split(began: float, ends: list[float]) -> dict[str, float]:
    """Seconds of each phase; one that was over before its predecessor took none."""
    made, last = {}, began
    for phase, end in zip(PHASES, ends, strict=True):
        made[phase] = max(0.0, end - last)
        last = max(last, end)
    return {**made, "total": last - began}


def _ask(job: Job, needed: int, deadline: float) -> tuple[float, float]:
    """When N workers had joined, and when the first iteration was made."""
    joined: float | None = None
    while time.time() < deadline:
        answer, now = job.answer(), time.time()
        if answer is not None:
            if joined is None and sum(m.state == "Live" for m in answer.members) >= needed:
                joined = now
            if answer.iteration >= 1:
                return joined or now, now
        time.sleep(0.05)
    raise TimeoutError(job.explain())


def _until(look: Callable[[], float | None], deadline: float) -> float:
    while time.time() < deadline:
        if (at := look()) is not None:
            return at
        time.sleep(0.1)
    raise TimeoutError("the job's status never said Running")
