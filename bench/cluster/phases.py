"""From `kubectl apply` to the first iteration: when each phase was over, as whoever watches sees it.

Everything runs on one machine, so there is one clock. Pods and job are watched by kubectl; how many workers
have joined and the first iteration are asked of the aggregator 20 times a second, through the API server.
"""

import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from place import Place

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
_PODS: Final = (
    r'{.metadata.name}{"\t"}{.metadata.labels.backupsync\.dev/role}'
    r'{"\t"}{.status.conditions[?(@.type=="PodScheduled")].status}'
    r'{"\t"}{.status.containerStatuses[*].state.running.startedAt}{"\n"}'
)
_JOBS: Final = (
    r'{.metadata.name}{"\t"}{.status.conditions[?(@.type=="Accepted")].status}{"\t"}{.status.state}{"\n"}'
)


class Watch:
    """Lines of `kubectl get --watch`, each with the time it was read."""

    def __init__(self, place: Place, namespace: str, resource: str, template: str) -> None:
        command = place.kubectl("get", resource, "-n", namespace, "--watch", "-o", f"jsonpath={template}")
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.lines: list[tuple[float, list[str]]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append((time.time(), line.rstrip("\n").split("\t")))

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()
        self._thread.join(5)

    def nth(self, count: int, fits: Callable[[list[str]], bool]) -> float | None:
        """When `count` different objects had once shown what fits; None while they have not."""
        seen: set[str] = set()
        for at, words in list(self.lines):
            if fits(words):
                seen.add(words[0])
                if len(seen) >= count:
                    return at
        return None


def measure(place: Place, job: Job, manifest: dict[str, Any], deadline: float = 180.0) -> dict[str, float]:
    """Create the job and return the seconds that each phase took, and `running`: when its status said so."""
    aggregation = manifest["spec"]["aggregation"]
    needed, total = aggregation["workers"], aggregation["workers"] + aggregation.get("backupWorkers", 0)
    pods = Watch(place, job.namespace, "pods", _PODS)
    jobs = Watch(place, job.namespace, "backupsyncjobs", _JOBS)
    time.sleep(1.0)  # both watches are up
    try:
        began = time.time()
        job.create(manifest)
        joined, first = _ask(job, needed, began + deadline)
        running = _until(lambda: jobs.nth(1, lambda w: w[2:] == ["Running"]), began + deadline)
        ends = [
            jobs.nth(1, lambda w: w[1:2] == ["True"]),
            pods.nth(total + 1, bool),
            pods.nth(total + 1, lambda w: w[2:3] == ["True"]),
            _started(pods, needed),
            joined,
            first,
        ]
    finally:
        pods.close()
        jobs.close()
    assert None not in ends, dict(zip(PHASES, ends, strict=True))
    return {**_split(began, [end for end in ends if end is not None]), "running": running - began}


def _started(pods: Watch, needed: int) -> float | None:
    def up(role: str) -> Callable[[list[str]], bool]:
        return lambda words: words[1:2] == [role] and bool(words[3:4] and words[3])

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
