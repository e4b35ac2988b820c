"""The custom resource's status: the planner's memory, lossless, and what people and tools read. Pure."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from backupsync.control import AggregatorStatus
from backupsync.kube import names
from backupsync.lifecycle.types import Condition, JobStatus, RankHistory, Replica, ReplicaId
from backupsync.spec import BackupSyncJob
from backupsync_operator.memory import compact, finite, restored
from backupsync_operator.render import Images

MOST_DECISIONS = 20
"""Decisions kept in status.decisions."""
MOST_CHARACTERS = 1024
"""Longest text of a decision."""


class View(NamedTuple):
    """Everything a status is made of beside the planner's memory."""

    job: BackupSyncJob
    generation: int
    """metadata.generation that was planned for."""
    replicas: tuple[Replica, ...]
    images: Images
    operator_version: str
    explanation: Sequence[str] = ()
    """The last plan's."""
    aggregator_ready: bool = False


def memory_of(status: Mapping[str, Any] | None) -> JobStatus:
    """Return the planner's memory from a status; an empty one where there is none yet.

    Fields of a later operator are ignored: going back to an earlier one is possible. Raises
    msgspec.ValidationError for a memory that no operator wrote.
    """
    return restored((status or {}).get("memory"))


def status_of(memory: JobStatus, view: View, old: Mapping[str, Any] | None, now: float) -> dict[str, Any]:
    """Return the whole status of a custom resource; `old` is the one it replaces. Absent keys are unset."""
    made: dict[str, Any] = {
        "observedGeneration": view.generation,
        "state": memory.phase,
        "conditions": [_condition(c, view.generation) for c in memory.conditions],
        "startTime": time_of(memory.start_time),
        "completionTime": time_of(memory.completion_time),
        "replicas": _effective(memory),
        "selector": names.role_selector(view.job.metadata.name, "worker"),
        "workers": _workers(memory, view),
        "aggregator": _aggregator(memory, view),
        "ranks": [_rank(memory, view, history) for history in _shown(memory, view)],
        "progress": _progress(memory.progress, now),
        "images": {"worker": view.images.worker, "aggregator": view.images.aggregator},
        "operatorVersion": view.operator_version,
        "slow": 0,
        "decisions": decisions_of(old, view.explanation, now),
        "message": _message(memory),
        "memory": compact(memory),
    }
    return {key: value for key, value in made.items() if value is not None}


def difference(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the JSON merge patch (RFC 7396) that makes `new` of `old`; None where nothing differs."""
    old = old or {}
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if key in old and before == value and type(before) is type(value):
            continue
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            inner = difference(before, value)
            if inner is not None:
                patch[key] = inner
        else:
            patch[key] = value
    return patch or None


def time_of(seconds: float | None) -> str | None:
    """RFC 3339 of Unix seconds, to the second, as the API server writes it."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def decisions_of(
    old: Mapping[str, Any] | None, explanation: Sequence[str], now: float
) -> list[dict[str, Any]]:
    """Return the newest decisions, oldest first: those of `old` and the lines that are new."""
    kept = [dict(d) for d in (old or {}).get("decisions") or ()]
    said = {d.get("text") for d in kept}
    at = time_of(now)
    fresh = [text[:MOST_CHARACTERS] for text in explanation]
    kept += [{"time": at, "text": text} for text in dict.fromkeys(fresh) if text not in said]
    return kept[-MOST_DECISIONS:]


def _message(memory: JobStatus) -> str:
    """Why the job is where it is, in one line."""
    of = {condition.type: condition for condition in memory.conditions}
    kinds = ["Succeeded"] if memory.phase == "Succeeded" else ["Failed"] if memory.phase == "Failed" else []
    if memory.phase == "Suspended" or memory.suspend_refused:
        kinds.append("Suspended")
    if "Accepted" in of and of["Accepted"].status == "False":
        kinds.append("Accepted")
    found = next((of[kind].message for kind in (*kinds, "Ready") if kind in of and of[kind].message), "")
    return " ".join(found.split())[:MOST_CHARACTERS]


def _condition(condition: Condition, generation: int) -> dict[str, Any]:
    return {
        "type": condition.type,
        "status": condition.status,
        "observedGeneration": generation,
        "lastTransitionTime": time_of(condition.last_transition_time),
        "reason": condition.reason,
        "message": condition.message[:32768],
    }


def _effective(memory: JobStatus) -> int:
    """N in force, which is what the scale subresource shows."""
    answer = memory.progress
    if answer is not None and answer.required and memory.phase == "Running":
        return answer.required
    return (
        0 if memory.phase not in ("Pending", "Running") or memory.desired is None else memory.desired.workers
    )


def _live(memory: JobStatus) -> int:
    if memory.phase not in ("Pending", "Running") or memory.progress is None:
        return 0
    if memory.progress.epoch != memory.aggregator_attempt:
        return 0
    return sum(m.state == "Live" for m in memory.progress.members)


def _workers(memory: JobStatus, view: View) -> dict[str, Any]:
    phases = [r for r in view.replicas if r.id.role == "worker"]
    succeeded = sum(r.phase == "Exited" and r.exit_code == 0 for r in phases)
    desired, live = len([m for m in memory.members if not m.candidate]), _live(memory)
    return {
        "desired": desired,
        "live": live,
        "ready": f"{live}/{desired}",
        "running": sum(r.phase == "Running" for r in phases),
        "pending": sum(r.phase == "Pending" for r in phases),
        "failed": sum(r.phase == "Exited" for r in phases) - succeeded,
        "succeeded": succeeded,
    }


def _aggregator(memory: JobStatus, view: View) -> dict[str, Any]:
    epoch = memory.aggregator_attempt
    id_ = ReplicaId("aggregator", 0, epoch)
    made: dict[str, Any] = {
        "epoch": epoch,
        "ready": view.aggregator_ready,
        "crashes": memory.aggregator_crashes_total,
        "losses": memory.aggregator_losses_total + memory.aggregator_evictions,
    }
    replica = next((r for r in view.replicas if r.id == id_), None)
    if replica is not None:
        made["pod"] = names.pod_name(view.job.metadata.name, id_)
        if replica.node:
            made["node"] = replica.node
    return made


def _shown(memory: JobStatus, view: View) -> list[RankHistory]:
    total = view.job.spec.aggregation.total
    return [history for history in memory.ranks if history.rank < total]


def _rank(memory: JobStatus, view: View, history: RankHistory) -> dict[str, Any]:
    member = next((m for m in memory.members if m.rank == history.rank and not m.candidate), None)
    id_ = ReplicaId("worker", history.rank, history.attempts if member is None else member.attempt)
    replica = next((r for r in view.replicas if r.id == id_), None)
    made: dict[str, Any] = {
        "rank": history.rank,
        "attempt": id_.attempt,
        "phase": "Absent" if replica is None else replica.phase,
        "crashes": history.crashes,
        "crashesTotal": history.crashes_total,
        "losses": history.losses_total,
        "evictions": history.evictions,
        "restarts": history.restarts_total,
    }
    if replica is not None:
        made["pod"] = names.pod_name(view.job.metadata.name, id_)
        if replica.node:
            made["node"] = replica.node
    return made


def _progress(answer: AggregatorStatus | None, now: float) -> dict[str, Any] | None:
    if answer is None:
        return None
    made: dict[str, Any] = {
        "iteration": answer.iteration,
        "iterations": answer.iterations_total,
        "rate": f"{answer.rate:.3g}/s" if math.isfinite(answer.rate) else None,
        "iterationsPerSecond": answer.rate,
        "etaSeconds": answer.eta_seconds,
        "loss": answer.loss,
        "examples": answer.examples,
        "checkpointIteration": answer.checkpoint_iteration,
        "evaluation": answer.evaluation or None,
        "metrics": answer.metrics or None,
        "lastUpdateTime": time_of(now),
    }
    if answer.iterations_total:
        made["percent"] = min(100, 100 * answer.iteration // answer.iterations_total)
    shown: dict[str, Any] = finite(made)
    return {key: value for key, value in shown.items() if value is not None}
