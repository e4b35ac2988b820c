"""`Client`: a BackupSyncJob on a cluster, from Python. Everything the command line does goes through here."""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from backupsync.cluster import paths
from backupsync.cluster.connection import FIELD_MANAGER, MERGE_PATCH, Connection, Object
from backupsync.cluster.errors import (
    Forbidden,
    Invalid,
    NotFound,
    NotInstalled,
    TimedOut,
)
from backupsync.cluster.events import events_of
from backupsync.cluster.explain import reasons_of
from backupsync.cluster.logs import Selection, follow_logs, read_logs
from backupsync.cluster.pods import Endpoint, endpoints_of, list_pods
from backupsync.cluster.sending import send
from backupsync.cluster.submission import Submission, read_submission
from backupsync.cluster.types import Event, Job, LogLine, job_of
from backupsync.cluster.waiting import Until, changes, verdict
from backupsync.kube import names


class Client:
    """Jobs of one namespace of one cluster.

        with Client() as client:                      # the kubeconfig's current context and namespace
            client.submit("examples/digits.yaml")
            job = client.wait("digits", timeout=600)
            client.get_model("digits", Path("out"))

    Every method raises `backupsync.errors.BackupSyncError`; its kinds in `backupsync.cluster` tell what is
    not there (NotFound), refused (Invalid, Forbidden), taken (Conflict), late (TimedOut) or silent
    (Unreachable). Safe to use from several threads.
    """

    def __init__(
        self,
        *,
        context: str | None = None,
        kubeconfig: str | Path | None = None,
        namespace: str | None = None,
        timeout: float = 30.0,
    ) -> None:
        """Find the cluster: by `kubeconfig`, $KUBECONFIG, ~/.kube/config, or this pod's service account.

        `context` is the current one by default and `namespace` the context's. `timeout` is the longest
        silence of the API server in seconds. Raises ClusterError; the cluster is asked nothing yet.
        """
        self._connection = Connection(
            context=context, kubeconfig=kubeconfig, namespace=namespace, timeout=timeout
        )

    @property
    def namespace(self) -> str:
        """The namespace this client works in."""
        return self._connection.namespace

    @property
    def context(self) -> str:
        """Name of the kubeconfig's context; `in-cluster` for a pod's service account."""
        return self._connection.context

    def within(self, namespace: str) -> "Client":
        """Return a client of another namespace, over the same connection."""
        other = copy.copy(self)
        other._connection = self._connection.within(namespace)
        return other

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._connection.close()

    def submit(self, manifest: str | Path, *, program: str | Path | None = None, pack: bool = True) -> Job:
        """Create the job of a manifest file, with the program beside it (or at `program`) packed in.

        Everything is checked before anything is created: the manifest here, all of it at once, then the job
        by the API server. Raises DocumentError, Invalid, and Conflict where a job of this name exists.
        """
        packed = None if program is None else Path(program)
        return self.send(read_submission(Path(manifest), None, self.namespace, packed, pack))

    def send(self, submission: Submission) -> Job:
        """Create what `read_submission` read."""
        return send(self._connection, submission)

    def get(self, name: str) -> Job:
        """Return how the job stands. Raises NotFound."""
        return job_of(self._get(name))

    def list(self, *, all_namespaces: bool = False) -> Sequence[Job]:
        """Return the jobs of the namespace, or of all, by namespace and name."""
        path = paths.jobs(None if all_namespaces else self.namespace)
        found = self._connection.request("GET", path, "jobs")
        jobs = [job_of(document) for document in found.get("items") or []]
        return sorted(jobs, key=lambda job: (job.namespace, job.name))

    def wait(
        self,
        name: str,
        until: Until = "succeeded",
        *,
        timeout: float | None = None,
        on_change: Callable[[Job], object] | None = None,
    ) -> Job:
        """Wait until the job is accepted, running, suspended, succeeded, failed, finished or deleted.

        `timeout` in seconds, None waits for ever; `on_change` is called with every new state. Outlasts
        restarts of the API server. Raises TimedOut, and Ended when it can no longer happen (the job failed).
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        job: Job | None = None
        for document in changes(self._connection, name, deadline):
            if document is None and job is None and until != "deleted":
                raise NotFound(
                    f"{self._what(name)}: not found; `backupsync list --cluster` shows what there is"
                )
            job = job_of(document) if document is not None else job
            if document is not None and job is not None and on_change is not None:
                on_change(job)
            if verdict(until, job, gone=document is None):
                return job if job is not None else self._departed(name)
        stands = f"it is {job.state}" if job else "it was never seen"
        raise TimedOut(f"{self._what(name)}: not {until} within {timeout:g} s; {stands}")

    def watch(self, name: str, *, timeout: float | None = None) -> Iterator[Job]:
        """Yield the job at once, and at every change of it; ends when it is deleted, or at `timeout`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for document in changes(self._connection, name, deadline):
            if document is None:
                return
            yield job_of(document)

    def logs(
        self,
        name: str,
        *,
        rank: int | None = None,
        role: Literal["aggregator", "worker"] | None = None,
        attempt: int | None = None,
        previous: bool = False,
        follow: bool = False,
    ) -> Iterator[LogLine]:
        """Yield log lines: of one worker (`rank`), of the aggregator (`role`), or of everyone.

        Of the newest attempt each, or of `attempt`, or of the one before the newest (`previous`). With
        `follow` pods that are still to come are waited for, each next attempt is taken up, and the end is
        that of the job. Raises NotFound where there is nothing to read.
        """
        role = "worker" if rank is not None else role
        wanted = Selection(role=role, rank=rank, attempt=attempt, previous=previous)
        if follow:
            return follow_logs(self._connection, self.get(name), wanted)
        return read_logs(self._connection, self.get(name), wanted)

    def events(self, name: str) -> Sequence[Event]:
        """Return the Events of the job and of its pods that the cluster still keeps (an hour, usually)."""
        return events_of(self._connection, self.get(name))

    def explain(self, name: str) -> Sequence[str]:
        """Return, in lines, why the job stands as it does."""
        return reasons_of(self._connection, self.get(name))

    def endpoints(self, name: str) -> Sequence[Endpoint]:
        """Return where the job's running pods serve /metrics, within the cluster."""
        self.get(name)
        return endpoints_of(list_pods(self._connection, self.namespace, name))

    def scale(self, name: str, *, workers: int | None = None, backup_workers: int | None = None) -> Job:
        """Change N, b or both, in one step. Raises Invalid."""
        wanted = {"workers": workers, "backupWorkers": backup_workers}
        changed = {key: value for key, value in wanted.items() if value is not None}
        if not changed:
            raise Invalid(f"{self._what(name)}: say what to change: workers, backup_workers, or both")
        return self._patch(name, {"spec": {"aggregation": changed}})

    def suspend(self, name: str) -> Job:
        """Ask for a checkpoint and let every pod go."""
        return self._patch(name, {"spec": {"runPolicy": {"suspend": True}}})

    def resume(self, name: str) -> Job:
        """Go on with a suspended job, from its checkpoint."""
        return self._patch(name, {"spec": {"runPolicy": {"suspend": False}}})

    def delete(
        self, name: str, *, checkpoints: bool = False, wait: bool = False, timeout: float | None = None
    ) -> str | None:
        """Delete the job, and its checkpoint volume only if `checkpoints` (or its retention) says so.

        With `wait`, return when its pods are gone too. Returns the name of the PersistentVolumeClaim that
        stays, None where none does. Raises NotFound, TimedOut.
        """
        job = self.get(name)
        body = {"propagationPolicy": "Background", "preconditions": {"uid": job.uid}}
        self._connection.request("DELETE", paths.jobs(self.namespace, name), self._what(name), body=body)
        if wait:
            deadline = None if timeout is None else time.monotonic() + timeout
            self._await_departure(job, deadline)
        return self._settle_claim(name, job.uid, checkpoints)

    def get_model(
        self, name: str, out: Path, *, averaged: bool = False, image: str | None = None
    ) -> Sequence[Path]:
        """Fetch the model of the job into directory `out`; return the files written.

        The finished model (`model.safetensors`; `averaged`: `model-ema.safetensors` too), or that of the
        newest checkpoint while the job trains. Read in the aggregator's pod while it runs, else through a
        pod of our own that mounts the checkpoint volume read-only and is deleted afterwards. Its `image` is
        the job's own; of a job that is deleted, whose claim stayed, it must be named (any with python3).
        """
        from backupsync.cluster.model_fetch import fetch_model, fetch_retained  # noqa: PLC0415

        try:
            job = self._get(name)
        except NotInstalled:
            raise
        except NotFound:
            return fetch_retained(self._connection, name, out, averaged, image)
        return fetch_model(self._connection, job, out, averaged, image)

    def _get(self, name: str) -> Object:
        try:
            return self._connection.request("GET", paths.jobs(self.namespace, name), self._what(name))
        except NotInstalled:
            raise
        except NotFound as error:
            remedy = "`backupsync list --cluster` shows what there is, -n NAMESPACE looks elsewhere"
            raise NotFound(f"{self._what(name)}: not found; {remedy}") from error

    def _patch(self, name: str, change: dict[str, Any]) -> Job:
        path = paths.jobs(self.namespace, name)
        query = (("fieldManager", FIELD_MANAGER), ("fieldValidation", "Strict"))
        what = self._what(name)
        return job_of(
            self._connection.request("PATCH", path, what, query=query, body=change, content_type=MERGE_PATCH)
        )

    def _await_departure(self, job: Job, deadline: float | None) -> None:
        pods = paths.core(self.namespace, "pods")
        query = (("labelSelector", f"{names.UID_LABEL}={job.uid}"),)
        while True:
            left = self._connection.request("GET", pods, "pods", query=query).get("items") or []
            if not left and self._is_gone(job):
                return
            if deadline is not None and time.monotonic() > deadline:
                said = ", ".join(pod["metadata"]["name"] for pod in left[:5]) or "the job itself"
                raise TimedOut(f"{self._what(job.name)}: still there: {said}")
            time.sleep(0.5)

    def _is_gone(self, job: Job) -> bool:
        try:
            return self.get(job.name).uid != job.uid
        except NotFound:
            return True

    def _settle_claim(self, name: str, uid: str, delete: bool) -> str | None:
        """Delete the checkpoint claim, or return its name if it stays."""
        claim = names.claim_name(name)
        path, what = paths.core(self.namespace, "persistentvolumeclaims", claim), f"claim {claim}"
        try:
            if delete:
                self._connection.request("DELETE", path, what)
                return None
            meta = self._connection.request("GET", path, what)["metadata"]
        except NotFound:
            return None
        except Forbidden:
            if delete:
                raise
            return claim
        owned = any(owner.get("uid") == uid for owner in meta.get("ownerReferences") or [])
        return None if owned else claim

    def _departed(self, name: str) -> Job:
        return job_of({"metadata": {"name": name, "namespace": self.namespace}})

    def _what(self, name: str) -> str:
        return f"job {name} in namespace {self.namespace}"
