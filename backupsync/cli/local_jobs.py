"""Jobs that run as local processes: what the commands read of their state, and change in it."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer
from pydantic import ValidationError

from backupsync.errors import BackupSyncError
from backupsync.local import ownership
from backupsync.local.client import read_port
from backupsync.local.home import FINISHED, JobDirectory
from backupsync.spec import BackupSyncJob
from backupsync.spec.document import remedy_of


def directories(root: Path) -> Iterator[JobDirectory]:
    """Yield the jobs that are known here, by name."""
    for path in sorted(root.glob("jobs/*/run.json")):
        yield JobDirectory(root, path.parent.name)


def edit(directory: JobDirectory, section: str, values: dict[str, Any]) -> BackupSyncJob:
    """Change fields of one section of the spec. Raises BackupSyncError naming field, value and remedy."""
    name = directory.name
    if directory.lock.holder() is None:
        finished = directory.read_status().phase in FINISHED
        remedy = "it has ended" if finished else "change its manifest and start it with `backupsync run`"
        raise BackupSyncError(f"job {name}: is not running; {remedy}")
    with directory.editing():
        document = directory.read_job().model_dump(mode="json", by_alias=True)
        document["spec"][section].update(values)
        try:
            job = BackupSyncJob.model_validate(document)
        except ValidationError as error:
            said = "; ".join(remedy_of(detail["msg"]) for detail in error.errors())
            given = ", ".join(f"{field} = {value}" for field, value in values.items())
            raise BackupSyncError(f"job {name}: spec.{section}: {given}: {said}") from error
        directory.write_job(job)
    return job


def delete(directory: JobDirectory, checkpoints: bool) -> Path | None:
    """Delete the state of a job that is not running; return where its checkpoints stay, if they do."""
    name, pid = directory.name, directory.lock.holder()
    if pid is not None:
        raise BackupSyncError(f"job {name}: is running (pid {pid}); stop it first: kill -TERM {pid}")
    manifest, facts = directory.read_job(), directory.read_facts()
    path = Path(facts.checkpoint_directory)
    inside = path.is_relative_to(directory.path)
    if checkpoints or manifest.spec.checkpoint.retention == "Delete":
        ownership.clear(path, name)
    elif inside and any(path.glob("*")):
        raise BackupSyncError(
            f"job {name}: its checkpoints lie inside its state ({path}); move them away, "
            "or say --checkpoints to delete them too"
        )
    with directory.lock.held(name):
        directory.remove()
    return path if path.exists() else None


def metrics_targets(directory: JobDirectory) -> list[dict[str, Any]]:
    """Return where /metrics are served, as Prometheus file_sd targets. Raises BackupSyncError for nowhere."""
    if directory.lock.holder() is None:
        raise BackupSyncError(f"job {directory.name}: is not running, so nothing serves its metrics")
    current = directory.read_status()
    found: list[dict[str, Any]] = []
    epoch = current.aggregator_attempt
    if (port := read_port(directory.http_file(epoch), epoch)) is not None:
        found.append(_target(directory.name, port, {"role": "aggregator"}))
    for member in current.members:
        if (port := read_port(directory.metrics_file(member.rank, member.attempt))) is not None:
            labels = {"role": "worker", "rank": str(member.rank), "attempt": str(member.attempt)}
            found.append(_target(directory.name, port, labels))
    return found


def _target(job: str, port: int, labels: dict[str, str]) -> dict[str, Any]:
    return {"targets": [f"127.0.0.1:{port}"], "labels": {"job": job, **labels}}


def log_file(directory: JobDirectory, rank: int | None, attempt: int | None, previous: bool) -> Path:
    """Return a log of a worker or of the aggregator: the newest, or another attempt's."""
    stem = "aggregator-" if rank is None else f"worker-{rank}-"
    pattern = f"{stem}*.log" if attempt is None else f"{stem}{attempt}[-.]*"
    found = sorted(directory.logs.glob(pattern), key=lambda path: path.stat().st_mtime_ns)
    if len(found) <= previous:
        whose = "the aggregator" if rank is None else f"worker {rank}"
        whose += f" (attempt {attempt})" if attempt is not None else " before its newest" * previous
        ranks = sorted({int(path.name.split("-")[1]) for path in directory.logs.glob("worker-*.log")})
        raise BackupSyncError(f"job {directory.name}: {whose} has written no log; ranks with one: {ranks}")
    return found[-2] if previous else found[-1]


def newest_logs(directory: JobDirectory) -> list[Path]:
    """Return the newest log of everyone, the aggregator's first."""
    ranks = {int(path.name.split("-")[1]) for path in directory.logs.glob("worker-*.log")}
    whose = [*([None] if any(directory.logs.glob("aggregator-*.log")) else []), *sorted(ranks)]
    return [log_file(directory, rank, None, previous=False) for rank in whose]


def print_log(directory: JobDirectory, path: Path, follow: bool) -> None:
    """Print a log; with `follow` until the job's engine ends."""
    with path.open("r", encoding="utf-8", errors="replace") as file:
        while True:
            text = file.read()
            if text:
                typer.echo(text, nl=False)
            elif not follow or directory.lock.holder() is None:
                return
            else:
                time.sleep(0.2)


def print_logs(directory: JobDirectory, follow: bool, prefix: Callable[[str, str], str]) -> None:
    """Print the newest logs of everyone, line by line, each with its prefix."""
    at: dict[Path, int] = {}
    while True:
        running = directory.lock.holder() is not None
        quiet = True
        for path in newest_logs(directory):
            data = path.read_bytes()[at.get(path, 0) :]
            if running:
                data = data[: data.rfind(b"\n") + 1]  # the rest of its last line is still to come
            at[path] = at.get(path, 0) + len(data)
            for line in data.decode("utf-8", "replace").splitlines():
                quiet = False
                typer.echo(prefix(path.stem, line))
        if quiet and (not follow or not running):
            return
        if quiet:
            time.sleep(0.2)
