"""Fetching a job's model: from the aggregator's pod while it runs, else from its volume, by another pod."""

import hashlib
import json
import secrets
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal

from backupsync.cluster import paths
from backupsync.cluster.connection import Connection, Object
from backupsync.cluster.errors import ClusterError, NotFound, TimedOut
from backupsync.cluster.exec import CommandOutput
from backupsync.cluster.pods import is_running, list_pods
from backupsync.cluster.reader_pod import CONTAINER, parsed, reader_pod
from backupsync.cluster.tensor_file import extract_model, move_into_place, read_header
from backupsync.cluster.types import job_of
from backupsync.errors import CheckpointError
from backupsync.kube.checkpoints import Place, place_of
from backupsync.kube.names import pod_name

MODEL: Final = "model.safetensors"
AVERAGED: Final = "model-ema.safetensors"
_STATE, _DOCUMENT, _SUMS = "state.safetensors", "checkpoint.json", "SHA256SUMS"
_READY_SECONDS: Final = 180.0

# Runs in the pod. Opens every file before it sends one: the aggregator may remove a checkpoint meanwhile, an
# open file stays. Prints a tar archive; exits with 3 and one line where there is nothing.
_SENDER: Final = r"""
import os, re, sys, tarfile
root, finished = sys.argv[1], sys.argv[2] == "finished"
def newest():
    found = []
    for name in os.listdir(root):
        match = re.fullmatch(r"checkpoint-(\d+)-epoch-(\d+)(?:-(\d+))?", name)
        if match:
            iteration, epoch, again = (int(part or 0) for part in match.groups())
            found.append(((epoch, iteration, again), os.path.join(root, name)))
    return max(found)[1] if found else None
def opened():
    models = ("model.safetensors", "model-ema.safetensors")
    if finished and os.path.exists(os.path.join(root, models[0])):
        there = [n for n in models if os.path.exists(os.path.join(root, n))]
        return [(n, open(os.path.join(root, n), "rb")) for n in there]
    folder = newest()
    if folder is None:
        return []
    parts = ("SHA256SUMS", "checkpoint.json", "state.safetensors")
    return [(n, open(os.path.join(folder, n), "rb")) for n in parts]
for attempt in range(5):
    try:
        files = opened()
        break
    except FileNotFoundError as error:
        files = []
        if not os.path.isdir(root):
            break
if not files:
    sys.exit(f"no checkpoint in {root} yet" if os.path.isdir(root) else f"there is no directory {root}")
with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.PAX_FORMAT) as archive:
    for name, file in files:
        archive.addfile(archive.gettarinfo(arcname=name, fileobj=file), file)
"""


def fetch_model(connection: Connection, job: Object, out: Path, averaged: bool) -> list[Path]:
    """Fetch the model into `out`; see `Client.get_model`."""
    told = job_of(job)
    place = place_of(parsed(job), told.uid)
    out.mkdir(parents=True, exist_ok=True)
    kind: Literal["finished", "newest"] = "finished" if told.state == "Succeeded" else "newest"
    command = ["python3", "-c", _SENDER, place.directory, kind]
    with tempfile.TemporaryDirectory(prefix=".backupsync-", dir=out) as folder:
        scratch = Path(folder)
        with _pod_with(connection, job, place) as (pod, container):
            output = CommandOutput(connection, told.namespace, pod, container, command)
            try:
                _unpack(output, scratch)
            finally:
                output.close()
        return _models(scratch, out, averaged)


@contextmanager
def _pod_with(connection: Connection, job: Object, place: Place) -> Iterator[tuple[str, str]]:
    """Lend a pod that sees the checkpoints: the aggregator's if it runs, else one that is deleted later."""
    told = job_of(job)
    pods = [(r, p) for r, p in list_pods(connection, told.namespace, told.name) if r.role == "aggregator"]
    running = [(r, p) for r, p in pods if is_running(r, p) and not p["metadata"].get("deletionTimestamp")]
    if running:
        yield pod_name(told.name, running[-1][0]), "aggregator"
        return
    if not place.durable:
        raise NotFound(
            f"job {told.name}: its checkpoints lay in an emptyDir, which went with the aggregator's pod: the "
            "model is gone. Set spec.checkpoint.volumeClaimTemplate to keep it"
        )
    image = told.images.get("aggregator")
    if not image:
        raise NotFound(f"job {told.name}: the operator has not accepted it yet, so there is no checkpoint")
    name = f"{told.name[:40]}-get-model-{secrets.token_hex(3)}"
    path = paths.core(told.namespace, "pods")
    what = f"pod {name} (which reads the checkpoint volume)"
    connection.request("POST", path, what, body=reader_pod(job, place, name, image))
    try:
        _await_running(connection, told.namespace, name, what)
        yield name, CONTAINER
    finally:
        with suppress(NotFound):
            body = {"gracePeriodSeconds": 0, "propagationPolicy": "Background"}
            connection.request("DELETE", paths.core(told.namespace, "pods", name), what, body=body)


def _await_running(connection: Connection, namespace: str, name: str, what: str) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        pod = connection.request("GET", paths.core(namespace, "pods", name), what)
        status = pod.get("status") or {}
        container: dict[str, Any] = next(iter(status.get("containerStatuses") or []), {})
        state = container.get("state") or {}
        if "running" in state:
            return
        waiting = state.get("waiting") or state.get("terminated") or {}
        conditions = status.get("conditions") or []
        said = [
            f"{c.get('reason')}: {c.get('message')}"
            for c in conditions
            if c.get("status") == "False" and c.get("message")
        ]
        reason = f"{waiting.get('reason', '')} {waiting.get('message', '')}".strip() or "; ".join(said[:1])
        if status.get("phase") in ("Failed", "Succeeded"):
            raise ClusterError(f"{what}: ended before it was read: {reason or status.get('reason')}")
        if time.monotonic() > deadline:
            raise TimedOut(
                f"{what}: does not run after {_READY_SECONDS:.0f} s: {reason or status.get('phase')}"
            )
        time.sleep(0.5)


def _unpack(output: CommandOutput, folder: Path) -> None:
    """Write the files of the archive into `folder`. Raises ClusterError where the sender failed."""
    allowed = {MODEL, AVERAGED, _STATE, _DOCUMENT, _SUMS}
    try:
        with tarfile.open(fileobj=output, mode="r|") as archive:
            for member in archive:
                source = archive.extractfile(member) if member.isreg() and member.name in allowed else None
                if source is None:
                    raise CheckpointError(f"the pod sent {member.name!r}, which nobody asked for")
                with (folder / member.name).open("xb") as file:
                    shutil.copyfileobj(source, file, 1024 * 1024)
    except tarfile.TarError as error:
        output.finish()
        raise ClusterError(f"the model arrived cut off: {error}; try again") from error
    output.finish()


def _models(folder: Path, out: Path, averaged: bool) -> list[Path]:
    """Check what came, make model files of it, and put them into `out`."""
    if not (folder / MODEL).exists():
        _verify(folder)
        entries = json.loads((folder / _DOCUMENT).read_bytes())["schema"]
        extract_model(folder / _STATE, entries, folder / MODEL, averaged=False)
        if averaged:
            extract_model(folder / _STATE, entries, folder / AVERAGED, averaged=True)
    elif averaged and not (folder / AVERAGED).exists():
        raise CheckpointError("the job kept no moving average; set spec.training.emaDecay for one")
    names = [MODEL, AVERAGED] if averaged else [MODEL]
    for name in names:
        read_header(folder / name)
    return move_into_place({folder / name: out / name for name in names})


def _verify(folder: Path) -> None:
    for line in (folder / _SUMS).read_text(encoding="ascii").splitlines():
        digest, _, name = line.partition("  ")
        with (folder / Path(name).name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise CheckpointError(f"the checkpoint's {name} differs from its SHA-256; try again")
