"""Why a job stands as it does: conditions, the operator's decisions, pods that do not run, warnings."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from backupsync.cluster.connection import Connection
from backupsync.cluster.errors import Forbidden
from backupsync.cluster.events import events_of
from backupsync.cluster.pods import Pod, list_pods, state_of
from backupsync.cluster.types import Event, Job
from backupsync.kube import names
from backupsync.lifecycle.types import ReplicaId

_WARNINGS: Final = 8
_DECISIONS: Final = 8
_UNSEEN_SECONDS: Final = 15.0


def reasons_of(connection: Connection, job: Job) -> list[str]:
    """Return the reasons in lines, the most telling first."""
    lines = list(said_by_status(job, datetime.now(UTC)))
    try:
        lines += said_by_pods(list_pods(connection, job.namespace, job.name))
    except Forbidden as error:
        lines.append(f"pods cannot be looked at: {error}")
    try:
        events = events_of(connection, job)
        lines += said_by_events(
            [event for event in events if not any(event.message in line for line in lines)]
        )
    except Forbidden as error:
        lines.append(f"events cannot be looked at: {error}")
    lines += [f"operator: {decision.text}" for decision in job.decisions[-_DECISIONS:]]
    return lines


def said_by_status(job: Job, now: datetime) -> Iterator[str]:
    """Yield what the job's own status says."""
    yield f"state {job.state}" + ("; it is being deleted" if job.deleting else "")
    if job.observed_generation < job.generation:
        age = (now - job.created).total_seconds() if job.created else 0.0
        if job.observed_generation:
            yield f"the operator has not taken up the newest change yet (generation {job.generation})"
        elif age > _UNSEEN_SECONDS:
            yield (
                f"no operator has looked at it in {age:.0f} s: is one installed, and does it watch namespace "
                f"{job.namespace}? (kubectl get pods -A -l app.kubernetes.io/name=backupsync)"
            )
    for condition in job.conditions:
        message = f": {condition.message}" if condition.message else ""
        yield f"condition {condition.type}={condition.status} ({condition.reason}){message}"
    if job.suspend:
        yield f"spec.runPolicy.suspend is true: go on with `backupsync resume {job.name} --cluster`"
    yield from _histories(job)


def said_by_pods(pods: Sequence[tuple[ReplicaId, Pod]]) -> Iterator[str]:
    """Yield what is wrong with the newest pod of each rank, the same of several but once."""
    newest = {(replica.role, replica.rank): (replica, pod) for replica, pod in pods}
    problems: dict[str, list[str]] = {}
    for replica, pod in newest.values():
        state = state_of(replica, pod)
        if state.problem:
            problems.setdefault(f"{state.phase}: {state.problem}", []).append(pod["metadata"]["name"])
    for problem, names_of in problems.items():
        yield f"pod {_together(names_of)}: {problem}"


def said_by_events(events: Sequence[Event]) -> Iterator[str]:
    """Yield the newest warnings, the same of several objects but once."""
    warnings = [e for e in events if e.kind == "Warning" and not e.message.startswith("Startup probe")]
    same: dict[tuple[str, str], list[Event]] = {}
    for event in warnings:
        same.setdefault((event.reason, event.message), []).append(event)
    for (reason, message), found in list(same.items())[-_WARNINGS:]:
        count = sum(event.count for event in found)
        many = f" ({count}×)" if count > 1 else ""
        about = _together(list(dict.fromkeys(event.object for event in found)))
        yield f"event {about}: {reason}: {message}{many}"


def _together(objects: Sequence[str]) -> str:
    first, *others = objects
    return f"{first} and {len(others)} more" if others else first


def _histories(job: Job) -> Iterator[str]:
    for member in job.ranks:
        counts = {
            "crashes": member.crashes_total,
            "crashes in a row without a gradient": member.crashes,
            "losses": member.losses,
            "evictions": member.evictions,
        }
        said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        if said:
            pod = names.pod_name(job.name, ReplicaId("worker", member.rank, member.attempt))
            yield f"worker {member.rank} (now {pod}): {said}"
    if job.aggregator.crashes or job.aggregator.losses:
        yield f"aggregator: {job.aggregator.crashes} crashes in a row, {job.aggregator.losses} losses"
