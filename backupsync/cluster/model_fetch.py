"""Fetching a job's model: from the aggregator's pod while it runs, else from its volume, by another pod."""

import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from backupsync.cluster import paths
from backupsync.cluster.connection import Connection, Object
from backupsync.cluster.errors import ClusterError, NotFound, TimedOut
from backupsync.cluster.exec import CommandOutput
from backupsync.cluster.model_transfer import SENDER, models_of, unpack
from backupsync.cluster.pods import is_running, list_pods
from backupsync.cluster.reader_pod import CONTAINER, parsed, reader_pod
from backupsync.cluster.types import job_of
from backupsync.kube.checkpoints import Place, place_of
from backupsync.kube.names import CHECKPOINT_DIRECTORY, claim_name, pod_name

_READY_SECONDS: Final = 180.0


def fetch_model(
    connection: Connection, job: Object, out: Path, averaged: bool, image: str | None
) -> list[Path]:
    """Fetch the model into `out`; see `Client.get_model`."""
    told = job_of(job)
    place = place_of(parsed(job), told.uid)
    command = [
        "python3",
        "-c",
        SENDER,
        place.directory,
        "finished" if told.state == "Succeeded" else "newest",
    ]
    with _pod_with(connection, job, place, image) as (pod, container):
        return _fetch(connection, (told.namespace, pod, container), command, out, averaged)


def fetch_retained(
    connection: Connection, name: str, out: Path, averaged: bool, image: str | None
) -> list[Path]:
    """Fetch the newest model on the claim that a deleted job left."""
    namespace, claim = connection.namespace, claim_name(name)
    path = paths.core(namespace, "persistentvolumeclaims", claim)
    try:
        connection.request("GET", path, f"claim {claim}")
    except NotFound as error:
        raise NotFound(
            f"job {name} in namespace {namespace}: not found, and it left no PersistentVolumeClaim {claim}"
        ) from error
    if image is None:
        raise NotFound(
            f"job {name} in namespace {namespace}: is deleted, its checkpoints are on PersistentVolumeClaim "
            f"{claim}; name an image to read them with, any with python3: --image IMAGE"
        )
    gone = {"metadata": {"name": name, "namespace": namespace}, "spec": {}}
    place = Place("Claim", CHECKPOINT_DIRECTORY, True, "")
    command = ["python3", "-c", SENDER, place.directory, "retained"]
    with _reader(connection, gone, place, image) as (pod, container):
        return _fetch(connection, (namespace, pod, container), command, out, averaged)


def _fetch(
    connection: Connection, where: tuple[str, str, str], command: list[str], out: Path, averaged: bool
) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".backupsync-", dir=out) as folder:
        output = CommandOutput(connection, *where, command)
        try:
            unpack(output, Path(folder))
        finally:
            output.close()
        return models_of(Path(folder), out, averaged)


@contextmanager
def _pod_with(
    connection: Connection, job: Object, place: Place, image: str | None
) -> Iterator[tuple[str, str]]:
    """Lend a pod that sees the checkpoints: the aggregator's if it runs, else one that is deleted later."""
    told = job_of(job)
    pods = [(r, p) for r, p in list_pods(connection, told.namespace, told.name) if r.role == "aggregator"]
    running = [(r, p) for r, p in pods if is_running(r, p) and not p["metadata"].get("deletionTimestamp")]
    ended = told.state in ("Succeeded", "Failed")  # the aggregator may end while it is read
    if running and not (ended and place.durable):
        yield pod_name(told.name, running[-1][0]), "aggregator"
        return
    if not place.durable:
        raise NotFound(
            f"job {told.name}: its checkpoints lay in an emptyDir, which went with the aggregator's pod: the "
            "model is gone. Set spec.checkpoint.volumeClaimTemplate to keep it"
        )
    image = image or told.images.get("aggregator")
    if not image:
        raise NotFound(f"job {told.name}: the operator has not accepted it yet, so there is no checkpoint")
    with _reader(connection, job, place, image) as found:
        yield found


@contextmanager
def _reader(connection: Connection, job: Object, place: Place, image: str) -> Iterator[tuple[str, str]]:
    """Lend a pod that mounts the volume; deleted when it is given back, whatever happened."""
    meta = job["metadata"]
    namespace, name = meta["namespace"], f"{meta['name']}-get-model-{secrets.token_hex(3)}"
    what = f"pod {name} (which reads the checkpoint volume)"
    try:
        body = reader_pod(job, place, name, image)
        connection.request("POST", paths.core(namespace, "pods"), what, body=body)
        _await_running(connection, namespace, name, what)
        yield name, CONTAINER
    finally:
        with suppress(NotFound):
            body = {"gracePeriodSeconds": 0, "propagationPolicy": "Background"}
            connection.request("DELETE", paths.core(namespace, "pods", name), what, body=body)


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
