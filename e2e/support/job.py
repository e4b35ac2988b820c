"""One BackupSyncJob of a test: what it and its pods say, and waiting for them to say something else."""

import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

import msgspec

from backupsync.control import AggregatorStatus
from backupsync.kube import names
from backupsync.lifecycle.types import Role
from support.api import Api, ApiError, Object, Unavailable, name_of
from support.waiting import PATIENCE, wait

T = TypeVar("T")


class Told(NamedTuple):
    """An Event, as `kubectl describe` shows it."""

    kind: str
    reason: str
    message: str
    times: int


class Job:
    """A job by namespace and name; it need not exist (yet, or any more)."""

    def __init__(self, api: Api, namespace: str, name: str) -> None:
        self.api, self.namespace, self.name = api, namespace, name

    # ---- what the user does

    def create(self, manifest: Object) -> "Job":
        """Create the job."""
        self.api.create("job", self.namespace, manifest)
        return self

    def patch(self, **spec: Any) -> None:
        """Merge into the spec."""
        self.api.patch("job", self.namespace, self.name, {"spec": spec})

    def delete(self) -> None:
        """Delete the job; does not wait."""
        self.api.delete("job", self.namespace, self.name)

    # ---- what it says

    def find(self) -> Object | None:
        """The object, None where there is none."""
        return self.api.find("job", self.namespace, self.name)

    def get(self) -> Object:
        """The object. Raises ApiError where there is none."""
        return self.api.get("job", self.namespace, self.name)

    @property
    def uid(self) -> str:
        """The uid of the object."""
        return str(self.get()["metadata"]["uid"])

    @property
    def status(self) -> Object:
        """The status, empty as long as nobody wrote one."""
        status: Object = (self.find() or {}).get("status", {})
        return status

    @property
    def state(self) -> str:
        """Pending, Running, Suspended, Succeeded or Failed; empty as long as nobody said."""
        return str(self.status.get("state", ""))

    def condition(self, kind: str) -> Object:
        """A condition by its type; one of status Unknown where there is none."""
        conditions: list[Object] = self.status.get("conditions", [])
        none = {"type": kind, "status": "Unknown", "reason": "", "message": ""}
        return next((c for c in conditions if c["type"] == kind), none)

    def holds(self, kind: str, reason: str | None = None) -> bool:
        """Whether a condition is True, and for this reason."""
        condition = self.condition(kind)
        return condition["status"] == "True" and reason in (None, condition["reason"])

    def events(self) -> list[Told]:
        """Events of the job itself."""
        return [
            Told(e.get("type", ""), e.get("reason", ""), e.get("message", ""), e.get("count") or 1)
            for e in self.api.list("event", self.namespace)
            if e["involvedObject"].get("name") == self.name
            and e["involvedObject"].get("kind") == "BackupSyncJob"
        ]

    def told(self, reason: str) -> bool:
        """Whether there is an Event for this reason."""
        return any(event.reason == reason for event in self.events())

    def pods(self, role: Role | None = None) -> list[Object]:
        """Every pod of the job that still is, of one role or of both."""
        selector = names.role_selector(self.name, role) if role else f"{names.JOB_LABEL}={self.name}"
        return self.api.list("pod", self.namespace, selector)

    def worker(self, rank: int) -> Object | None:
        """The pod of the newest attempt of a rank."""
        found = [p for p in self.pods("worker") if rank_of(p) == rank]
        return max(found, key=attempt_of, default=None)

    def aggregator(self) -> Object | None:
        """The pod of the newest epoch."""
        return max(self.pods("aggregator"), key=attempt_of, default=None)

    def answer(self) -> AggregatorStatus | None:
        """What the aggregator in office says of itself at this moment; None while it says nothing."""
        pod = self.aggregator()
        if pod is None or not alive(pod):
            return None
        try:
            page = self.api.pod_page(self.namespace, pod["metadata"]["name"], names.HTTP_PORT, "status")
        except (ApiError, Unavailable):
            return None
        return msgspec.json.decode(page, type=AggregatorStatus)

    def iteration(self) -> int:
        """Updates applied, as the aggregator says; 0 while it does not answer."""
        answer = self.answer()
        return 0 if answer is None else answer.iteration

    def live(self) -> set[tuple[int, int]]:
        """(rank, attempt) of the workers that the aggregator calls live."""
        answer = self.answer()
        return {(m.rank, m.attempt) for m in answer.members if m.state == "Live"} if answer else set()

    def metric(self, sample: str) -> float:
        """The sample of the aggregator's /metrics that begins with `sample`, 0 where there is none."""
        pod = self.aggregator()
        assert pod is not None
        page = self.api.pod_page(self.namespace, pod["metadata"]["name"], names.HTTP_PORT, "metrics")
        lines = page.decode().splitlines()
        return next((float(line.split()[-1]) for line in lines if line.startswith(f"{sample} ")), 0.0)

    def launch(self, pod: Object) -> Object:
        """What a pod of ours was told to be (backupsync.launch)."""
        role = pod["metadata"]["labels"][names.ROLE_LABEL]
        container = next(c for c in pod["spec"]["containers"] if c["name"] == role)
        variable = next(e for e in container["env"] if e["name"] == f"BACKUPSYNC_{role.upper()}")
        told: Object = json.loads(variable["value"].replace("$$(", "$("))
        return told

    # ---- waiting

    def wait(
        self,
        predicate: Callable[[], T | None],
        *,
        failure: Callable[[], object] | None = None,
        timeout: float = PATIENCE,
    ) -> T:
        """Wait for `predicate`; by default a job that has failed is the end of hope."""
        return wait(predicate, failure=failure or self.failed, timeout=timeout, explain=self.explain)

    def failed(self) -> str:
        """Why the job has failed; empty as long as it has not."""
        condition = self.condition("Failed")
        return f"{condition['reason']}: {condition['message']}" if condition["status"] == "True" else ""

    def wait_until_failed(self, timeout: float = PATIENCE) -> Object:
        """Wait until the job has failed and return the condition; one that succeeds is the end of hope."""
        self.wait(self.failed, failure=lambda: self.holds("Succeeded"), timeout=timeout)
        return self.condition("Failed")

    def wait_until_succeeded(self, timeout: float = 300.0) -> None:
        """Wait until the job has succeeded."""
        self.wait(lambda: self.holds("Succeeded"), timeout=timeout)

    def wait_for_iteration(self, iteration: int, timeout: float = PATIENCE) -> int:
        """Wait until so many updates are applied; return how many are."""
        self.wait(lambda: self.iteration() >= iteration, timeout=timeout)
        return self.iteration()

    def wait_for_more(self, updates: int = 5, timeout: float = PATIENCE) -> int:
        """Wait until so many more updates are applied; return how many are."""
        before = self.wait(self.iteration, timeout=timeout)
        return self.wait_for_iteration(before + updates, timeout)

    def wait_until_live(self, count: int, timeout: float = PATIENCE) -> set[tuple[int, int]]:
        """Wait until the aggregator calls so many workers live, and training is under way."""
        self.wait(lambda: len(self.live()) >= count and self.iteration() > 0, timeout=timeout)
        return self.live()

    def wait_until_replaced(self, pod: Object, timeout: float = PATIENCE) -> Object:
        """Wait until a later attempt of a worker's rank is live; return its pod."""
        rank, attempt = rank_of(pod), attempt_of(pod)
        self.wait(lambda: any(r == rank and a > attempt for r, a in self.live()), timeout=timeout)
        successor = self.worker(rank)
        assert successor is not None
        return successor

    def wait_until_gone(self, timeout: float = PATIENCE) -> None:
        """Wait until neither the job nor a pod of it is left."""
        gone = lambda: self.find() is None and not self.pods()  # noqa: E731 -- a predicate
        wait(gone, timeout=timeout, explain=self.explain)

    def explain(self) -> str:
        """Everything that tells why it does not go on, for the message of a failure."""
        status = self.status
        conditions = (
            f"  {c['type']} {c['status']} {c['reason']}: {c['message']}" for c in _of(status, "conditions")
        )
        decisions = (f"  {d.get('time')} {d['text']}" for d in _of(status, "decisions"))
        shown = ("state", "workers", "aggregator", "progress")
        answer = self.answer()
        said = "no answer" if answer is None else msgspec.json.encode(answer).decode()
        events = (f"  {e.kind} {e.reason} (x{e.times}): {e.message}" for e in self.events())
        lines = [
            f"job {self.namespace}/{self.name}: {json.dumps({k: status.get(k) for k in shown})}",
            *conditions,
            "decisions, oldest first:",
            *decisions,
            f"aggregator: {said}",
            *(f"  {_line(pod)}" for pod in self.pods()),
            "events:",
            *events,
        ]
        return "\n".join(lines)


def rank_of(pod: Object) -> int:
    """The rank that a pod's labels name."""
    return int(pod["metadata"]["labels"][names.RANK_LABEL])


def attempt_of(pod: Object) -> int:
    """The attempt of a worker's pod, the epoch of an aggregator's."""
    return int(pod["metadata"]["labels"][names.ATTEMPT_LABEL])


def uids(objects: Iterable[Object]) -> set[str]:
    """The uids of objects."""
    return {o["metadata"]["uid"] for o in objects}


def alive(pod: Object) -> bool:
    """Whether a pod runs and nobody has told it to stop."""
    return pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]


def _of(status: Object, key: str) -> list[Object]:
    found: list[Object] = status.get(key, [])
    return found


def _line(pod: Object) -> str:
    status = pod["status"]
    states = {c["name"]: c.get("state") for c in status.get("containerStatuses", [])}
    why = [c for c in status.get("conditions", []) if c["status"] != "True"]
    going = " (deleted)" if "deletionTimestamp" in pod["metadata"] else ""
    return f"{name_of(pod)}{going} on {pod['spec'].get('nodeName')}: {status.get('phase')} {states} {why}"
