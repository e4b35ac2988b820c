"""The plain data of the planner: what is wanted, what is seen, what was intended, what to do.

`JobStatus` is the planner's memory: it is written down before its actions are carried out, so that a crash in
between neither loses nor doubles them. The local engine keeps it in a file, the operator in the CR's status.
"""

from typing import Literal

from msgspec import Struct, field

from backupsync.control import AggregatorStatus, Desired
from backupsync.exits import ExitKind

Role = Literal["aggregator", "worker"]


class ReplicaId(Struct, frozen=True, order=True):
    """One process or pod: a role, a rank (0 for the aggregator) and an attempt."""

    role: Role
    rank: int
    attempt: int


class Replica(Struct, frozen=True, kw_only=True):
    """A process or pod as the engine sees it."""

    id: ReplicaId
    phase: Literal["Pending", "Running", "Exited"]
    exit: ExitKind | None = None
    exit_code: int | None = None
    message: str = ""
    """Last words of an exited one (the user's traceback), or why it is pending."""
    reason: str = ""
    """CamelCase word for the message, such as Unschedulable, ImagePullBackOff or Evicted."""
    starts: int = 0
    """Restarts in place."""
    stopping: bool = False
    """It is being ended, by us or by somebody else: the planner does not ask again."""
    disruption: str = ""
    """CamelCase word for what ends it, or has ended it, from outside (eviction, preemption, shutdown)."""
    lingers: bool = False
    """It exited, yet its pod goes on: sidecars keep it."""
    ready: bool | None = None
    """Whether whoever is beside it (a kubelet's probe) finds it well; None where nobody looks."""
    node: str = ""
    """Node that a pod is bound to; empty before it is, and for a process."""
    node_ready: bool = True
    """Its node answers, as far as anybody can say."""
    node_lost: bool = False
    """Its node has been out of reach for longer than nodeLostGraceSeconds: nobody can say whether it runs."""
    final: AggregatorStatus | None = None
    """Last answer of an aggregator that exited, as it left it behind."""


class Rejection(Struct, frozen=True, kw_only=True):
    """An object that the API server would not create: planned again, shown, and counted as pending."""

    replica: ReplicaId | None = None
    """The pod that was refused; None for another object of the job, such as its claim."""
    reason: str
    """The API's own word, such as Invalid or Forbidden."""
    message: str
    """The API's own message."""


class Observed(Struct, frozen=True, kw_only=True):
    """Everything the engine sees at one moment.

    An exited replica is reported until the plan no longer intends it: otherwise its exit code and last
    words are lost, and it counts as one that vanished.
    """

    replicas: tuple[Replica, ...] = ()
    aggregator: AggregatorStatus | None = None
    """Newest answer of the running aggregator; None while there is none."""
    stop_requested: bool = False
    """The user asked to stop (Ctrl-C), to go on later."""
    term: int = 0
    """Term of the engine's lease; always 0 for the local engine."""
    pods: bool = False
    """Replicas are pods: they outlive the engine, so cleanPodPolicy applies to the letter, and a new
    aggregator need not wait for the old one's address. Processes always end with their job."""
    durable: bool | None = None
    """Whether checkpoints outlive the aggregator; None: as the spec says."""
    place: str = ""
    """Where checkpoints go, in words, for the Accepted condition; empty says nothing of it."""
    rejections: tuple[Rejection, ...] = ()
    """What could not be created when it was last tried."""


class MemberIntent(Struct, frozen=True, kw_only=True):
    """A minted (rank, attempt) that should exist."""

    rank: int
    attempt: int
    candidate: bool = False
    seen: bool = False
    """Its replica was observed: if it is missing now, it vanished, and its attempt is spent."""
    starts: int = 0
    """Restarts in place it should have had by now."""
    dismissed: bool = False
    """An aggregator that was ended from outside has sent it home: that it leaves is not its fault."""


class RestartIntent(Struct, frozen=True, kw_only=True):
    """A member asked to restart in place: settled once its starts exceed `start`."""

    rank: int
    attempt: int
    start: int


class RankHistory(Struct, frozen=True, kw_only=True):
    """Counters of one rank, never reset by a restart of the planner."""

    rank: int
    attempts: int = 0
    """Highest attempt ever minted for the rank; the next one is this + 1 (attempts count from 1)."""
    crashes: int = 0
    """Consecutive crashes with no COMMIT between: held against backoffLimit."""
    crashes_total: int = 0
    commits_seen: int = 0
    """COMMITs of the current attempt when last looked at."""
    retry_at: float = 0.0
    """Unix time before which the rank is not started again (exponential backoff)."""
    losses: int = 0
    """Consecutive ends that were not its fault (deleted, aggregator out of reach): they slow the next
    start down, but are not held against backoffLimit."""
    losses_total: int = 0
    """Of these, all that were no evictions: deletions, lost nodes, an aggregator out of reach."""
    evictions: int = 0
    """All ends by eviction, preemption or a node's shutdown."""
    restarts_total: int = 0
    """All restarts in place, asked for or not."""
    hung_attempt: int = 0
    """Attempt whose falling silent was counted as a crash: taken back if its node turns out to be lost."""
    lost_since: float | None = None
    """Unix time since which the aggregator calls it Lost while its replica still runs (frozen, cut off)."""
    left_since: float | None = None
    """Unix time at which it was first seen to have ended with 0 while the job went on."""


class Condition(Struct, frozen=True, kw_only=True):
    """A condition, by the Kubernetes API conventions."""

    type: Literal["Accepted", "Ready", "Suspended", "Succeeded", "Failed"]
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    last_transition_time: float = 0.0


class JobStatus(Struct, frozen=True, kw_only=True):
    """The planner's memory of one job."""

    phase: Literal["Pending", "Running", "Suspended", "Succeeded", "Failed"] = "Pending"
    conditions: tuple[Condition, ...] = ()
    members: tuple[MemberIntent, ...] = ()
    ranks: tuple[RankHistory, ...] = ()
    aggregator_attempt: int = 0
    """Attempt of the aggregator, which is its epoch; 0 before the first."""
    aggregator_crashes: int = 0
    aggregator_retry_at: float = 0.0
    aggregator_losses: int = 0
    """Consecutive ends of the aggregator that were not its fault, as RankHistory.losses."""
    aggregator_crashes_total: int = 0
    aggregator_losses_total: int = 0
    aggregator_evictions: int = 0
    aggregator_iteration: int = 0
    """Iteration reached when the aggregator last ended: only beyond it are its crashes forgotten."""
    aggregator_seen: bool = False
    """The replica of this attempt was observed."""
    aggregator_silent_since: float | None = None
    """Unix time since which the running aggregator, having answered before, answers no more."""
    restarts: tuple[RestartIntent, ...] = ()
    """Members asked to restart in place."""
    halt: Literal["", "Suspended", "Stopped"] = ""
    """Why the job is being (or is) suspended: by its spec, or by the user's Ctrl-C."""
    halting_since: float | None = None
    """Unix time at which the aggregator was first asked to suspend; None when none is under way."""
    halted_at: float | None = None
    """Unix time at which the phase became Suspended."""
    desired: Desired | None = None
    """Desired state last minted for the aggregator."""
    start_time: float | None = None
    active_seconds: float = 0.0
    """Time spent running, suspension excluded."""
    observed_at: float | None = None
    completion_time: float | None = None
    pending_since: float | None = None
    """Unix time since which training waits for pods that cannot start; None while it does not."""
    pending_told: tuple[str, ...] = ()
    """Reasons of pending pods announced since pods were last pending."""
    suspend_refused: bool = False
    """Suspension was asked for and refused, as nothing durable would be left to resume from."""
    evaluation_problem: str = ""
    """Why the newest evaluation has no result, as last announced; empty where it has one."""
    progress: AggregatorStatus | None = None
    """Last answer of the aggregator: kept so that a finished job still shows its figures."""

    @property
    def begun(self) -> bool:
        """Whether training had begun, as last seen: there is something to lose."""
        return self.progress is not None and self.progress.iteration > 0


class Start(Struct, frozen=True, tag=True):
    """Create the process or pod. A no-op when it runs; one that exited with 75 is started again in place,
    under the same id, with `starts` one higher.
    """

    replica: ReplicaId
    reason: str


class Stop(Struct, frozen=True, tag=True):
    """End the process or pod: politely, then by force after the grace period.

    A no-op for one that is gone or already ending: its grace counts from the first Stop.
    """

    replica: ReplicaId
    reason: str
    grace_seconds: float = 10.0
    force: bool = False
    """Forget it without waiting for its node to confirm (a pod: gracePeriodSeconds 0): for lost nodes only.
    Planned also for one that is ending already."""


class Tell(Struct, frozen=True, tag=True):
    """Send the whole desired state to the aggregator."""

    desired: Desired
    reason: str


class Announce(Struct, frozen=True, tag=True):
    """Tell people: an event of the job."""

    kind: Literal["Normal", "Warning"]
    reason: str
    message: str


class Delete(Struct, frozen=True, tag=True):
    """Delete the finished job: its record, and whatever of it is not to be retained."""

    reason: str


Action = Start | Stop | Tell | Announce | Delete


class Plan(Struct, frozen=True, kw_only=True):
    """What to do now: write `status` first, then carry out `actions`, then look again."""

    actions: tuple[Action, ...]
    status: JobStatus
    requeue_after: float | None = None
    """Seconds after which to look again even if nothing happens; None: only when something does."""
    explanation: tuple[str, ...] = field(default_factory=tuple)
    """Why, in words: one line per decision, also for what was left undone."""
