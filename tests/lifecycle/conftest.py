"""An engine without processes: it carries out plans in a world whose every mishap the test chooses."""

from collections.abc import Callable, Collection
from typing import Any

import msgspec
import pytest
from msgspec import structs

from backupsync.control import AggregatorStatus, Desired, MemberStatus
from backupsync.exits import ExitKind, kind_of
from backupsync.lifecycle import plan
from backupsync.lifecycle.types import (
    Action,
    Announce,
    Delete,
    JobStatus,
    Observed,
    Plan,
    Rejection,
    Replica,
    ReplicaId,
    Start,
    Stop,
    Tell,
)
from backupsync.spec import BackupSyncJob


class Aggregator:
    """What an aggregator of one epoch makes of what it is told."""

    def __init__(self, epoch: int, desired: Desired, iteration: int = 0) -> None:
        self.epoch = epoch
        self.desired = desired
        self.iteration = iteration
        self.phase = "Joining"
        self.reason = self.message = self.evaluation_problem = ""
        self.members: dict[tuple[int, int], MemberStatus] = {}

    def apply(self, desired: Desired) -> None:
        if desired.order <= self.desired.order:
            return
        self.desired = desired
        pairs = {(m.rank, m.attempt) for m in desired.members}
        self.members = {pair: m for pair, m in self.members.items() if pair in pairs}

    def join(self, rank: int, attempt: int, start: int) -> bool:
        wanted = next((m for m in self.desired.members if (m.rank, m.attempt) == (rank, attempt)), None)
        if wanted is None:
            return False
        old = self.members.get((rank, attempt))
        if old is None or old.state == "Lost" or old.start < start:
            state = "Candidate" if wanted.candidate else "Live"
            commits = old.commits if old else 0
            self.members[rank, attempt] = MemberStatus(
                rank=rank, attempt=attempt, start=start, state=state, phase="compute", commits=commits
            )
        return True

    def train(self, iterations: int) -> None:
        live = [pair for pair, m in self.members.items() if m.state in ("Live", "Candidate")]
        if self.phase not in ("Joining", "Training") or len(live) < self.desired.workers:
            return
        self.phase = "Training"
        self.iteration += iterations
        for pair in live:
            member = self.members[pair]
            for other, rival in self.members.items():
                if member.state == "Candidate" and other[0] == pair[0] and other != pair:
                    self.members[other] = structs.replace(rival, state="Fenced")
            self.members[pair] = structs.replace(
                member, state="Live", commits=self.members[pair].commits + iterations
            )

    def status(self) -> AggregatorStatus:
        return AggregatorStatus(
            job="digits",
            uid="u",
            epoch=self.epoch,
            phase=self.phase,
            reason=self.reason,
            message=self.message,
            applied=self.desired.order,
            required=self.desired.workers,
            backups=self.desired.backup_workers,
            iteration=self.iteration,
            evaluation_problem=self.evaluation_problem,
            checkpoint_iteration=self.iteration,
            members=tuple(self.members.values()),
        )


class World:
    """A job, the clock, the replicas there are, and the engine's hands."""

    def __init__(self, workers: int = 2, backups: int = 1, checkpoint: bool = True, **policy: Any) -> None:
        self.aggregation = {"workers": workers, "backupWorkers": backups}
        self.policy = policy
        self.checkpoint: dict[str, Any] = {"path": "out"} if checkpoint else {}
        self.now = 1000.0
        self.status = JobStatus()
        self.replicas: dict[ReplicaId, Replica] = {}
        self.aggregator: Aggregator | None = None
        self.frozen: set[ReplicaId] = set()
        self.silent = False
        self.stop_requested = False
        self.pods = False
        self.durable: bool | None = None
        self.rejections: tuple[Rejection, ...] = ()
        self.stuck: dict[tuple[str, int], tuple[str, str]] = {}
        """(role, rank) whose pods stay pending, and why."""
        self.term = 0
        self.log: list[Action] = []
        self.deleted = False
        self.saved = 0

    @property
    def job(self) -> BackupSyncJob:
        return BackupSyncJob.model_validate(
            {
                "apiVersion": "backupsync.dev/v1alpha1",
                "kind": "BackupSyncJob",
                "metadata": {"name": "digits"},
                "spec": {
                    "program": {"entrypoint": "digits:Digits"},
                    "aggregation": self.aggregation,
                    "training": {"iterations": 100, "batchSize": 8, "optimizer": {"lr": 0.1}},
                    "checkpoint": self.checkpoint,
                    "runPolicy": self.policy,
                },
            }
        )

    def observe(self) -> Observed:
        answer = None if self.aggregator is None or self.silent else self.aggregator.status()
        return Observed(
            replicas=tuple(self.replicas.values()),
            aggregator=answer,
            stop_requested=self.stop_requested,
            pods=self.pods,
            durable=self.durable,
            rejections=self.rejections,
            term=self.term,
        )

    def look(self, lose: Collection[int] = ()) -> Plan:
        """Plan, store the status as an engine would, and act, but for the actions whose index is lost."""
        made = plan(self.job, self.observe(), self.status, self.now)
        self.status = msgspec.json.decode(msgspec.json.encode(made.status), type=JobStatus)
        assert self.status == made.status
        for index, action in enumerate(made.actions):
            if index not in lose:
                self.act(action)
        return made

    def act(self, action: Action) -> None:
        self.log.append(action)
        match action:
            case Start(replica=id_):
                old = self.replicas.get(id_)
                assert old is None or (old.phase == "Exited" and old.exit_code == 75), (
                    f"{id_} is there already"
                )
                starts = 0 if old is None else old.starts + 1
                reason, message = self.stuck.get((id_.role, id_.rank), ("", ""))
                self.replicas[id_] = Replica(
                    id=id_, phase="Pending", starts=starts, reason=reason, message=message
                )
            case Stop(replica=id_, force=force) if id_ in self.replicas:
                assert force == self.replicas[id_].node_lost, "by force on a lost node, and nowhere else"
                if force:
                    self.vanish(id_)
                elif self.replicas[id_].phase == "Exited":
                    del self.replicas[id_]
                else:
                    self.replicas[id_] = structs.replace(self.replicas[id_], stopping=True)
            case Tell(desired=desired) if self.aggregator is not None:
                self.aggregator.apply(desired)
            case Delete():
                self.deleted = True

    # ---- what may happen, by itself or by the test's will

    def boot(self) -> None:
        """Whatever was started comes up; workers join."""
        for id_, replica in list(self.replicas.items()):
            if replica.phase == "Pending" and (id_.role, id_.rank) not in self.stuck and replica.node_ready:
                self.replicas[id_] = structs.replace(replica, phase="Running", reason="", message="")
                if id_.role == "aggregator" and id_.attempt == self.status.aggregator_attempt:
                    assert self.status.desired is not None
                    kept = self.saved if self.checkpoint else 0
                    self.aggregator = Aggregator(id_.attempt, self.status.desired, kept)
        if self.aggregator is None:
            return
        for id_, replica in self.running("worker"):
            pair = (id_.rank, id_.attempt)
            if id_ in self.frozen or self.aggregator.join(*pair, replica.starts):
                continue
            if not replica.stopping:
                self.exit(id_, 76)

    def train(self, iterations: int = 5) -> None:
        if self.aggregator is not None:
            self.aggregator.train(iterations)
            self.saved = self.aggregator.iteration

    def obey(self) -> None:
        """The aggregator does what it was told; stopped replicas end."""
        told = self.aggregator
        if told is not None and (told.desired.suspend or told.desired.stop):
            if told.phase not in ("Succeeded", "Failed"):
                told.phase = "Suspended"
            self.dismiss()
            if told.desired.stop:
                self.exit(ReplicaId("aggregator", 0, told.epoch), 0 if told.phase != "Failed" else 1)
        self.reap()

    def dismiss(self) -> None:
        for id_, _ in self.running("worker"):
            if id_ not in self.frozen:
                self.exit(id_, 0)

    def reap(self) -> None:
        for id_, replica in list(self.replicas.items()):
            if replica.stopping and replica.node_ready:
                self.exit(id_, 143)
                if self.pods:  # the API server forgets a pod that was deleted and has ended
                    del self.replicas[id_]

    def finish(self, phase: str = "Succeeded", reason: str = "Completed", message: str = "") -> None:
        assert self.aggregator is not None
        self.aggregator.phase, self.aggregator.reason, self.aggregator.message = phase, reason, message

    def exit(self, id_: ReplicaId, code: int, message: str = "") -> None:
        old = self.replicas[id_]
        if old.phase == "Exited":
            return
        kind = ExitKind.DISRUPTED if old.disruption else kind_of(code)
        self.replicas[id_] = Replica(
            id=id_,
            phase="Exited",
            exit=kind,
            exit_code=code,
            message=message,
            starts=old.starts,
            disruption=old.disruption,
            final=self._last_status(id_, code),
        )
        self._gone(id_)

    def _last_status(self, id_: ReplicaId, code: int) -> AggregatorStatus | None:
        told = self.aggregator
        if not self.pods or told is None or id_ != ReplicaId("aggregator", 0, told.epoch):
            return None
        ended = code in (0, 1) and told.phase in ("Suspended", "Succeeded", "Failed")
        return structs.replace(told.status(), members=()) if ended else None

    def oom(self, id_: ReplicaId) -> None:
        self.exit(id_, 137, "Killed")
        assert self.replicas[id_].exit is ExitKind.OUT_OF_MEMORY

    def vanish(self, id_: ReplicaId) -> None:
        del self.replicas[id_]
        self._gone(id_)

    def _gone(self, id_: ReplicaId) -> None:
        self.frozen.discard(id_)
        if self.aggregator is None:
            return
        if id_.role == "aggregator" and id_.attempt == self.aggregator.epoch:
            self.aggregator = None
        elif id_.role == "worker" and (pair := (id_.rank, id_.attempt)) in self.aggregator.members:
            self.aggregator.members[pair] = structs.replace(self.aggregator.members[pair], state="Lost")

    def delete(self, id_: ReplicaId, disruption: str = "") -> None:
        """Somebody else deletes it, or evicts it: it has its grace period."""
        self.replicas[id_] = structs.replace(self.replicas[id_], stopping=True, disruption=disruption)

    def evict(self, id_: ReplicaId) -> None:
        self.delete(id_, "EvictionByEvictionAPI")

    def silence_node(self, id_: ReplicaId, *, lost: bool = False) -> None:
        """The node of a pod is heard of no more; `lost`: for longer than the grace period."""
        self.replicas[id_] = structs.replace(
            self.replicas[id_], node="n1", node_ready=False, node_lost=lost, ready=False
        )
        self.freeze(id_)
        if id_.role == "aggregator":
            self.silent = True

    def freeze(self, id_: ReplicaId) -> None:
        self.frozen.add(id_)
        pair = (id_.rank, id_.attempt)
        if self.aggregator is not None and pair in self.aggregator.members:
            self.aggregator.members[pair] = structs.replace(self.aggregator.members[pair], state="Lost")

    def thaw(self, id_: ReplicaId) -> None:
        self.frozen.discard(id_)

    # ---- what the test asks

    def running(self, role: str) -> list[tuple[ReplicaId, Replica]]:
        found = [(i, r) for i, r in self.replicas.items() if i.role == role and r.phase == "Running"]
        return sorted(found)

    def alive(self) -> list[ReplicaId]:
        return sorted(id_ for id_, replica in self.replicas.items() if replica.phase != "Exited")

    def worker(self, rank: int) -> ReplicaId:
        """The replica of the member of `rank`."""
        member = next(m for m in self.status.members if m.rank == rank and not m.candidate)
        return ReplicaId("worker", rank, member.attempt)

    @property
    def epoch(self) -> ReplicaId:
        return ReplicaId("aggregator", 0, self.status.aggregator_attempt)

    def condition(self, kind: str) -> Any:
        return next(c for c in self.status.conditions if c.type == kind)

    def announced(self) -> list[str]:
        return [action.reason for action in self.log if isinstance(action, Announce)]

    def up(self) -> "World":
        """Start everything and train a little."""
        self.look()
        self.boot()
        self.train()
        self.look()
        return self

    def settle(self, rounds: int = 60) -> None:
        """Nothing fails any more: look, obey and boot until a plan has nothing left to do."""
        self.silent = False
        quiet = 0
        for _ in range(rounds):
            made = self.look()
            self.obey()
            self.boot()
            self.train(1)
            quiet = quiet + 1 if not made.actions and made.requeue_after is None else 0
            if quiet == 2:
                return
            self.now += min(made.requeue_after or 0.2, 100.0)
        raise AssertionError(f"no rest after {rounds} rounds: {made}")


MakeWorld = Callable[..., World]


@pytest.fixture
def make_world() -> MakeWorld:
    """(workers, backups, checkpoint, **runPolicy) -> a world in which nothing has been started."""
    return World


@pytest.fixture
def actions_of() -> Callable[[Plan], list[str]]:
    """Plan -> its actions as "Start worker-0-1" and the like, announcements left out."""

    def render(made: Plan) -> list[str]:
        lines = []
        for action in made.actions:
            match action:
                case Start(replica=r) | Stop(replica=r):
                    name = f"worker-{r.rank}-{r.attempt}" if r.role == "worker" else f"aggregator-{r.attempt}"
                    lines.append(f"{type(action).__name__} {name}")
                case Tell() | Delete():
                    lines.append(type(action).__name__)
        return lines

    return render
