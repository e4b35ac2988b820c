"""`backupsync run --replay TRACE`: recompute a traced run from manifest and trace, bit for bit, or refuse.

The real aggregator and real workers run again, under the local engine; only the round is another: it hands
out what the trace says was accepted (`backupsync_aggregator.round.replaying`). A resize or a kill in between
needs nothing special: what a killed aggregator had lost is not in the history that stands.
"""

import tempfile
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from backupsync.errors import BackupSyncError
from backupsync.lifecycle.types import JobStatus
from backupsync.local.home import JobDirectory
from backupsync.local.observer import Silent
from backupsync.local.run import RunOptions, prepare, start
from backupsync.report.history import History, applied_in
from backupsync.spec import BackupSyncJob
from backupsync.trace import Ended, Gradient, Header, read_trace
from backupsync_aggregator.service import versions

_FREE = ("worker", "aggregator", "checkpoint", "runPolicy", "stragglers", "security")
"""Parts of the spec that no bit of the parameters depends on."""
_RESIZED = ("workers", "backupWorkers")


class ReplayError(BackupSyncError):
    """A trace that cannot be recomputed here to the same bits."""


def replay(job: BackupSyncJob, manifest: Path, trace: Path) -> int:
    """Recompute, say what came of it, and return the exit code: 0 for the same bits. Raises ReplayError."""
    history = History.read(read_trace(trace))
    _require_same(job, history.header)
    if not history.iterations:
        raise ReplayError(f"{trace}: holds no iteration that stands: there is nothing to recompute")
    _require_whole(trace, history)
    with tempfile.TemporaryDirectory(prefix="backupsync-replay-") as scratch:
        status, again = _recompute(_job_of(job, history), manifest, trace, Path(scratch))
    return _verdict(history, status, again)


def _recompute(
    job: BackupSyncJob, manifest: Path, trace: Path, scratch: Path
) -> tuple[JobStatus, History | None]:
    directory = JobDirectory(scratch, job.metadata.name)
    options = RunOptions()
    with directory.lock.held(job.metadata.name):
        prepared = prepare(job, manifest, directory, options)
        facts = msgspec.structs.replace(prepared.facts, replay_trace=str(trace.absolute()))
        prepared = msgspec.structs.replace(prepared, facts=facts)
        status = start(prepared, Silent(), options).run()
    written = directory.trace_file
    return status, History.read(read_trace(written)) if written.exists() else None


def _verdict(history: History, status: JobStatus, again: History | None) -> int:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    ended = again.ended if again is not None else None
    if again is None or ended is None or status.phase != "Succeeded":
        console.print(f"replay failed: {_why(status, ended)}", markup=False)
        return 1
    if again.header.initial_digest != history.header.initial_digest:
        console.print("replay differs: the initial parameters are others than in the traced run")
        return 1
    count, digest = len(history.iterations), ended.parameter_digest or ""
    if history.ended is None or history.ended.parameter_digest is None:
        console.print(
            f"recomputed {count} iterations; the traced run was cut off, nothing to compare: {digest}"
        )
        return 0
    if digest != history.ended.parameter_digest:
        console.print(
            f"replay differs after {count} iterations: {digest}, was {history.ended.parameter_digest}"
        )
        return 1
    console.print(f"recomputed {count} iterations to the same parameters, bit for bit: sha256 {digest}")
    return 0


def _why(status: JobStatus, ended: Ended | None) -> str:
    """What the aggregator gave as the reason; where it was only told to stop, what the engine did."""
    if ended is not None and ended.outcome == "Failed":
        return ended.message
    progress = status.progress
    said = progress.message if progress is not None and progress.phase == "Failed" else ""
    return said or _reason(status)


def _reason(status: JobStatus) -> str:
    failed = [c for c in status.conditions if c.type == "Failed" and c.status == "True"]
    return f"{failed[0].reason}: {failed[0].message}" if failed else f"the replay is {status.phase}"


def _require_same(job: BackupSyncJob, header: Header) -> None:
    """Refuse where other bits must come out: another manifest, or other software."""
    here = _numeric(job.spec.model_dump(mode="json", by_alias=True))
    then = _numeric(BackupSyncJob.model_validate(header.manifest).spec.model_dump(mode="json", by_alias=True))
    for name in here:
        if here[name] != then[name]:
            raise ReplayError(
                f"spec.{name}: differs from the traced run's: {here[name]} is not {then[name]}; "
                "replay needs the manifest that was run"
            )
    for name, version in versions().items():
        if header.versions.get(name) != version:
            raise ReplayError(
                f"{name}: is {version} here, the trace was made with {header.versions.get(name)}; "
                "the same bits cannot be promised"
            )


def _numeric(spec: dict[str, Any]) -> dict[str, Any]:
    """What bits depend on. N and b come from the trace: a resize may have come before its header."""
    kept = {name: value for name, value in spec.items() if name not in _FREE}
    kept["aggregation"] = {k: v for k, v in spec["aggregation"].items() if k not in _RESIZED}
    return kept


def _require_whole(trace: Path, history: History) -> None:
    """Refuse a trace with a hole: a replay would compute something else."""
    applied: dict[int, int] = {}
    for gradient in _accepted(history):
        update = applied_in(gradient)
        applied[update] = applied.get(update, 0) + 1
    for number, iteration in enumerate(history.iterations):
        if iteration.iteration != number or applied.get(number, 0) != iteration.accepted:
            raise ReplayError(
                f"{trace}: iteration {number} is not there in whole ({applied.get(number, 0)} gradients "
                f"of {iteration.accepted}); the trace was cut"
            )


def _accepted(history: History) -> list[Gradient]:
    return [gradient for gradient in history.gradients if gradient.outcome == "accepted"]


def _job_of(job: BackupSyncJob, history: History) -> BackupSyncJob:
    """The job that recomputes: one worker for every rank that was ever accepted, and nothing to drop."""
    ranks = 1 + max(gradient.rank for gradient in _accepted(history))
    document = job.model_dump(mode="json", by_alias=True)
    spec = document["spec"]
    traced = BackupSyncJob.model_validate(history.header.manifest)
    spec["training"]["referenceWorkers"] = traced.spec.reference_workers
    spec["training"]["threads"] = history.header.threads
    spec["training"]["evaluation"]["everyIterations"] = 0
    if spec["aggregation"]["mode"] == "BackupSync":
        spec["aggregation"]["mode"] = "Sync"
    spec["aggregation"].update(workers=ranks, backupWorkers=0)
    spec["aggregation"]["belowQuorum"]["minimum"] = 1
    spec["runPolicy"] = {"backoffLimit": 0}
    spec["checkpoint"] = {"everyIterations": 2**31}
    spec["security"] = {}
    return BackupSyncJob.model_validate(document)
