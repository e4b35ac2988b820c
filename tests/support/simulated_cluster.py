"""A cluster in memory: raw pods, kubelets on nodes that may fall silent, processes that outlive their pods.

The operator's pure parts are driven through it end to end: what is started is rendered, what is seen is
observed from raw pods, and what is remembered has been through the custom resource's status.
"""

import copy
import json
from typing import Any

import msgspec
from merge_patch import merged
from msgspec import structs
from rendering import resource

from backupsync.control import AggregatorStatus, Desired, MemberStatus
from backupsync.kube import names
from backupsync.lifecycle import plan, worth_writing
from backupsync.lifecycle.types import (
    Action,
    Delete,
    JobStatus,
    Observed,
    Plan,
    Rejection,
    ReplicaId,
    Start,
    Stop,
    Tell,
)
from backupsync.termination import encode_ending
from backupsync_operator import observe
from backupsync_operator.cr import job_of
from backupsync_operator.cr_status import View, difference, memory_of, status_of, time_of
from backupsync_operator.render import Images, JobContext, pod

UNKNOWN_SECONDS = 40.0
"""After this long a node that is not heard of is Unknown, as the node controller has it."""
END = 60
"""Iteration at which the training has succeeded."""

Object = dict[str, Any]


class Process:
    """A container's process: it dies with its node or by its kubelet, not with its pod's object."""

    def __init__(self, id_: ReplicaId, uid: str, node: str) -> None:
        self.id, self.uid, self.node = id_, uid, node


class Aggregator(Process):
    """The process of one epoch."""

    def __init__(self, id_: ReplicaId, uid: str, node: str, desired: Desired, iteration: int) -> None:
        super().__init__(id_, uid, node)
        self.desired, self.iteration, self.phase = desired, iteration, "Joining"
        self.members: dict[tuple[int, int], MemberStatus] = {}

    def apply(self, desired: Desired) -> None:
        if desired.order > self.desired.order:
            self.desired = desired
            wanted = {(m.rank, m.attempt) for m in desired.members}
            self.members = {pair: m for pair, m in self.members.items() if pair in wanted}

    def answer(self) -> AggregatorStatus:
        return AggregatorStatus(
            job="digits",
            uid="u-1",
            epoch=self.id.attempt,
            phase=self.phase,  # type: ignore[arg-type]
            applied=self.desired.order,
            required=self.desired.workers,
            iteration=self.iteration,
            iterations_total=END,
            checkpoint_iteration=self.iteration,
            members=tuple(self.members.values()),
        )


class Cluster:
    """Nodes, pods, processes, the checkpoint volume and the custom resource."""

    def __init__(self, spec: Object) -> None:
        self.now = 1_800_000_000.0
        self.resource = resource(spec)
        self.nodes = {name: {"up": True, "reachable": True, "silent": None} for name in ("n0", "n1", "n2")}
        self.pods: dict[str, Object] = {}
        self.processes: list[Process] = []
        self.full = False
        self.claimed = self.saved = 0
        self._uids = 0

    # ---- the API server

    def create(self, body: Object) -> None:
        name = body["metadata"]["name"]
        if name in self.pods:
            return  # 409, and it is ours
        self._uids += 1
        made = json.loads(json.dumps(body))
        made["metadata"]["uid"] = str(self._uids)
        made["status"] = {"phase": "Pending"}
        self.pods[name] = made

    def delete(self, name: str, *, grace: float = 30.0, force: bool = False, disruption: str = "") -> None:
        found = self.pods.get(name)
        if found is None:
            return
        if disruption:
            condition = {"type": "DisruptionTarget", "status": "True", "reason": disruption}
            found["status"].setdefault("conditions", []).append(condition)
        ended = found["status"]["phase"] in ("Failed", "Succeeded")
        if force or ended or not found["spec"].get("nodeName"):
            del self.pods[name]
        else:
            found["metadata"].setdefault("deletionTimestamp", time_of(self.now + grace))

    def node_objects(self) -> dict[str, Object]:
        made = {}
        for name, node in self.nodes.items():
            silent = node["silent"]
            unknown = silent is not None and self.now >= silent + UNKNOWN_SECONDS
            since = time_of(silent + UNKNOWN_SECONDS) if unknown else time_of(0)
            condition = {
                "type": "Ready",
                "status": "Unknown" if unknown else "True",
                "lastTransitionTime": since,
            }
            made[name] = {"status": {"conditions": [condition]}}
        return made

    # ---- scheduler and kubelets

    def schedule(self) -> None:
        open_ = [
            n for n, o in self.node_objects().items() if o["status"]["conditions"][0]["status"] == "True"
        ]
        for found in self.pods.values():
            if found["spec"].get("nodeName"):
                continue
            if self.full or not open_:
                said = {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "0/3 nodes",
                }
                found["status"]["conditions"] = [said]
            else:
                load = {n: sum(p["spec"].get("nodeName") == n for p in self.pods.values()) for n in open_}
                found["spec"]["nodeName"] = min(open_, key=lambda n: load[n])
                found["status"]["conditions"] = []

    def kubelets(self, desired_of: dict[int, Desired]) -> None:
        alive = {n for n, node in self.nodes.items() if node["up"] and node["reachable"]}
        uids = {p["metadata"]["uid"] for p in self.pods.values()}
        self.processes = [p for p in self.processes if p.node not in alive or p.uid in uids]
        for name, found in list(self.pods.items()):
            if found["spec"].get("nodeName") not in alive:
                continue
            uid, running = found["metadata"]["uid"], self.process(found)
            if "deletionTimestamp" in found["metadata"]:
                self.processes = [p for p in self.processes if p.uid != uid]
                del self.pods[name]
            elif found["status"]["phase"] == "Pending":
                self._start(found, desired_of)
            elif found["status"]["phase"] == "Running" and running is None:
                self.end(found, 137, "ContainerStatusUnknown")  # its node went down under it

    def _start(self, found: Object, desired_of: dict[int, Desired]) -> None:
        id_ = names.replica_of(found["metadata"]["labels"])
        assert id_ is not None
        node, uid = found["spec"]["nodeName"], found["metadata"]["uid"]
        found["status"] = {
            "phase": "Running",
            "containerStatuses": [
                {"name": id_.role, "state": {"running": {}}, "ready": True, "restartCount": 0}
            ],
        }
        if id_.role == "worker":
            self.processes.append(Process(id_, uid, node))
        elif self.claimed >= id_.attempt:
            self.end(found, 76)
        else:
            self.claimed = id_.attempt
            self.processes.append(Aggregator(id_, uid, node, desired_of[id_.attempt], self.saved))

    def end(self, found: Object, code: int, reason: str = "Error", message: str = "") -> None:
        """The container of a pod ends."""
        id_ = names.replica_of(found["metadata"]["labels"])
        assert id_ is not None
        self.processes = [p for p in self.processes if p.uid != found["metadata"]["uid"]]
        ended = {"exitCode": code, "reason": reason, "message": message}
        old = found["status"]
        found["status"] = {**old, "phase": "Failed" if code else "Succeeded"}
        found["status"]["containerStatuses"] = [
            {"name": id_.role, "state": {"terminated": ended}, "restartCount": 0}
        ]

    def process(self, found: Object) -> Process | None:
        return next((p for p in self.processes if p.uid == found["metadata"]["uid"]), None)

    def pod_of(self, process: Process) -> Object | None:
        return next((p for p in self.pods.values() if p["metadata"]["uid"] == process.uid), None)

    def reachable(self, process: Process) -> bool:
        return bool(self.nodes[process.node]["reachable"])

    # ---- the processes

    def aggregator(self, epoch: int) -> Aggregator | None:
        """The process of an epoch, if anybody can reach it."""
        found = (p for p in self.processes if isinstance(p, Aggregator) and p.id.attempt == epoch)
        return next((p for p in found if self.reachable(p)), None)

    def work(self, epoch: int, iterations: int) -> None:
        """Workers join the aggregator that the Service names; it trains, and does as it was told."""
        told = self.aggregator(epoch)
        if told is None:
            return
        here = {
            (p.id.rank, p.id.attempt): p
            for p in self.processes
            if p.id.role == "worker" and self.reachable(p)
        }
        wanted = {(m.rank, m.attempt) for m in told.desired.members}
        for pair, process in here.items():
            if pair not in wanted:
                self.exit(process, 76)
            elif told.phase in ("Joining", "Training"):
                commits = told.members[pair].commits if pair in told.members else 0
                told.members[pair] = MemberStatus(
                    rank=pair[0], attempt=pair[1], start=0, state="Live", phase="compute", commits=commits
                )
        for pair, member in told.members.items():
            if pair not in here:
                told.members[pair] = structs.replace(member, state="Lost")
        self._train(told, iterations)
        self._obey(told)

    def _train(self, told: Aggregator, iterations: int) -> None:
        live = [pair for pair, m in told.members.items() if m.state == "Live"]
        if told.phase not in ("Joining", "Training") or len(live) < told.desired.workers:
            return
        if self.claimed > told.id.attempt:
            self.exit(told, 76)
            return
        told.phase = "Training"
        told.iteration = min(END, told.iteration + iterations)
        self.saved = told.iteration
        for pair in live:
            told.members[pair] = structs.replace(
                told.members[pair], commits=told.members[pair].commits + iterations
            )
        if told.iteration >= END:
            told.phase = "Succeeded"

    def _obey(self, told: Aggregator) -> None:
        if (told.desired.suspend or told.desired.stop) and told.phase in ("Joining", "Training"):
            told.phase = "Suspended"
        if told.phase in ("Suspended", "Succeeded"):
            for process in [p for p in self.processes if p.id.role == "worker" and self.reachable(p)]:
                if (process.id.rank, process.id.attempt) in told.members:
                    self.exit(process, 0)
        if told.phase == "Succeeded" or told.desired.stop:
            self.exit(told, 0, encode_ending(told.answer()))

    def exit(self, process: Process, code: int, message: str = "") -> None:
        found = self.pod_of(process)
        if found is not None:
            self.end(found, code, message=message)
        self.processes = [p for p in self.processes if p is not process]


class Operator:
    """The pure parts of the operator, and hands that may let anything fall."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.status: Object = {}
        self.term = 1
        self.desired_of: dict[int, Desired] = {}
        self.started: list[ReplicaId] = []
        self.deleted = False
        self.rejections: tuple[Rejection, ...] = ()
        self.restart()

    def restart(self) -> None:
        """All that is left is what was written."""
        self.memory = memory_of(self.status)
        self.sync()

    def sync(self) -> None:
        """The informers catch up."""
        self.store = copy.deepcopy(self.cluster.pods)
        self.nodes = self.cluster.node_objects()

    def observe(self) -> Observed:
        epoch = self.memory.aggregator_attempt
        told = self.cluster.aggregator(epoch)
        own = self.store.get(f"digits-aggregator-{epoch}")
        running = own is not None and own["status"]["phase"] == "Running"
        answer = told.answer() if told is not None and running else None
        now = self.cluster.now
        return Observed(
            replicas=observe.replicas(self.store.values(), answer, self.nodes, now, 30.0),
            aggregator=answer,
            pods=True,
            durable=True,
            term=self.term,
            rejections=self.rejections,
        )

    def look(self, *, lose: frozenset[int] = frozenset(), unwritten: bool = False) -> Plan:
        """Plan, write, act: actions whose index is in `lose` are lost, and all of them with the write."""
        job, observed = job_of(self.cluster.resource), self.observe()
        made = plan(job, observed, self.memory, self.cluster.now)
        if unwritten:
            return made
        self.memory = made.status
        if worth_writing(_urgent(memory_of(self.status)), _urgent(made.status)):
            view = View(
                job, 1, observed.replicas, Images(worker="w", aggregator="a"), "0.1.0", made.explanation
            )
            new = status_of(made.status, view, self.status, self.cluster.now)
            patch = difference(self.status, new)
            self.status = json.loads(json.dumps(merged(self.status, patch or {}), allow_nan=False))
            assert memory_of(self.status) == made.status
        for index, action in enumerate(made.actions):
            if index not in lose:
                self.act(action)
        return made

    def act(self, action: Action) -> None:
        match action:
            case Start(replica=id_):
                self._start(id_)
            case Stop(replica=id_, force=force):
                name = names.pod_name("digits", id_)
                self.cluster.delete(name, force=force)
                self._own_write(name)
            case Tell(desired=desired):
                told = self.cluster.aggregator(self.memory.aggregator_attempt)
                if told is not None:
                    told.apply(desired)
            case Delete():
                self.deleted = True

    def _start(self, id_: ReplicaId) -> None:
        written = memory_of(self.status)
        if id_.role == "aggregator":
            assert id_.attempt == written.aggregator_attempt, "started before it was written down"
            assert written.desired is not None
            self.desired_of[id_.attempt] = written.desired
        else:
            pairs = {(m.rank, m.attempt) for m in written.members}
            assert (id_.rank, id_.attempt) in pairs, "started before it was written down"
        earlier = [s.attempt for s in self.started if (s.role, s.rank) == (id_.role, id_.rank)]
        assert all(id_.attempt >= attempt for attempt in earlier), "attempts only rise"
        self.started.append(id_)
        images = Images(worker="w", aggregator="a")
        job = job_of(self.cluster.resource)
        context = JobContext(job=job, namespace="lab", uid="u-1", images=images, status=written)
        self.cluster.create(pod(context, id_))
        self._own_write(names.pod_name("digits", id_))

    def _own_write(self, name: str) -> None:
        """What the API server answers goes into the store at once."""
        self.store.pop(name, None)
        if name in self.cluster.pods:
            self.store[name] = copy.deepcopy(self.cluster.pods[name])


def _urgent(memory: JobStatus) -> JobStatus:
    """What an operator must write before it acts: the rest is found out again by looking."""
    return structs.replace(
        memory,
        aggregator_seen=False,
        members=tuple(structs.replace(m, seen=False) for m in memory.members),
        ranks=tuple(structs.replace(r, commits_seen=0) for r in memory.ranks),
    )


def written_size(status: Object) -> int:
    """Bytes of the memory in a status."""
    return len(msgspec.json.encode(status.get("memory") or {}))
