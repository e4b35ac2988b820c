"""Sending a submission: checked by the API server first, the program before the job, nothing left behind."""

from contextlib import suppress
from typing import Any, Final

from backupsync.cluster import paths, program
from backupsync.cluster.connection import APPLY_PATCH, FIELD_MANAGER, MERGE_PATCH, Connection, Object
from backupsync.cluster.errors import ClusterError, Conflict, Invalid, NotFound
from backupsync.cluster.submission import Submission
from backupsync.cluster.types import Job, job_of
from backupsync.kube import names

_CREATE: Final = (("fieldManager", FIELD_MANAGER), ("fieldValidation", "Strict"))
_DRY_RUN: Final = (*_CREATE, ("dryRun", "All"))


def send(connection: Connection, submission: Submission) -> Job:
    """Create the job of a submission, and what belongs to it; see `Client.submit`."""
    job, namespace = submission.job, str(submission.job["metadata"]["namespace"])
    path, what = paths.jobs(namespace), f"job {submission.name} in namespace {namespace}"
    try:
        connection.request("POST", path, what, query=_DRY_RUN, body=job)
    except Conflict as error:
        raise Conflict(
            f"{what}: exists already; delete it first (`backupsync delete {submission.name} --cluster "
            f"-n {namespace}`), or give this one another metadata.name"
        ) from error
    for document in submission.others:
        _apply(connection, document, namespace)
    if submission.program is None:
        return job_of(connection.request("POST", path, what, query=_CREATE, body=job))
    _bring(connection, submission.program)
    try:
        created = connection.request("POST", path, what, query=_CREATE, body=job)
    except ClusterError:
        _take_away(connection, submission.program["metadata"])
        raise
    _adopt(connection, submission.program, created)
    return job_of(created)


def _apply(connection: Connection, document: dict[str, Any], namespace: str) -> Object:
    """Create or update an object of any kind, by server-side apply."""
    version, kind = str(document.get("apiVersion")), str(document.get("kind"))
    name = str((document.get("metadata") or {}).get("name"))
    what = f"{kind} {name}"
    try:
        listed = connection.request("GET", paths.discovery(version), what).get("resources") or []
    except NotFound:
        listed = []
    found = next((r for r in listed if r["kind"] == kind and "/" not in r["name"]), None)
    if found is None:
        raise Invalid(f"{what}: this cluster knows no {kind} in {version}")
    where = str(document["metadata"].get("namespace") or namespace) if found["namespaced"] else None
    path = paths.of_kind(version, found["name"], where, name)
    query = (("fieldManager", FIELD_MANAGER), ("force", "true"))
    return connection.request("PATCH", path, what, query=query, body=document, content_type=APPLY_PATCH)


def _bring(connection: Connection, config_map: Object) -> None:
    """Create the program's ConfigMap, in the place of one that an earlier job of this name left.

    Not over it: that one is still to be collected with its owner, which would take the new program away.
    """
    meta = config_map["metadata"]
    what = f"ConfigMap {meta['name']}"
    try:
        found = connection.request("GET", _path(config_map["metadata"]), what)["metadata"]
    except NotFound:
        found = None
    if found is not None:
        if (found.get("labels") or {}).get(names.MANAGED_BY_LABEL) != program.MANAGER:
            raise Conflict(
                f"{what}: exists in namespace {meta['namespace']}, and `submit` did not make it; "
                "rename it, or mount it at /program in spec.worker.template, or say --no-program"
            )
        _take_away(connection, found)
    path = paths.core(meta["namespace"], "configmaps")
    connection.request("POST", path, what, query=_CREATE, body=config_map)


def _take_away(connection: Connection, meta: Object) -> None:
    body = {"preconditions": {"uid": meta["uid"]}} if "uid" in meta else {}
    with suppress(NotFound):
        connection.request("DELETE", _path(meta), f"ConfigMap {meta['name']}", body=body)


def _adopt(connection: Connection, config_map: Object, job: Object) -> None:
    """Make the job the owner of its program, so that it goes when the job goes."""
    meta = job["metadata"]
    owner = {
        "apiVersion": job["apiVersion"],
        "kind": job["kind"],
        "name": meta["name"],
        "uid": meta["uid"],
        "blockOwnerDeletion": False,
    }
    body = {"metadata": {"ownerReferences": [owner]}}
    what = f"ConfigMap {config_map['metadata']['name']}"
    connection.request("PATCH", _path(config_map["metadata"]), what, body=body, content_type=MERGE_PATCH)


def _path(meta: Object) -> str:
    return paths.core(meta["namespace"], "configmaps", meta["name"])
