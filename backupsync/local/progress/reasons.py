"""Why a job stands as it does, in lines."""

from collections.abc import Iterator

from backupsync.lifecycle.types import JobStatus


def reasons_of(status: JobStatus, explanation: tuple[str, ...]) -> Iterator[str]:
    """Yield conditions, the aggregator's own reason, crashes, refusals and the planner's latest reasons."""
    yield f"phase {status.phase}"
    for condition in status.conditions:
        message = f": {condition.message}" if condition.message else ""
        yield f"condition {condition.type}={condition.status} ({condition.reason}){message}"
    if (progress := status.progress) is not None:
        where = f"aggregator (epoch {progress.epoch}) {progress.phase}, iteration {progress.iteration}"
        yield ": ".join(part for part in (where, progress.reason, progress.message) if part)
        for refusal in progress.refusals:
            yield f"refused {refusal.peer} {refusal.count}×: {refusal.code}: {refusal.detail}"
    for history in status.ranks:
        if history.crashes_total:
            yield (
                f"worker {history.rank}: {history.crashes_total} crashes, {history.crashes} in a row "
                f"without a gradient between; attempt {history.attempts}"
            )
    if status.aggregator_crashes:
        yield f"aggregator: {status.aggregator_crashes} crashes in a row"
    for line in explanation:
        yield f"planner: {line}"
