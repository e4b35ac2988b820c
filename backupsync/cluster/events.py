"""Events of a job and of its pods, in order."""

import re
from datetime import UTC, datetime
from typing import Final

from backupsync.cluster import paths
from backupsync.cluster.connection import Connection
from backupsync.cluster.types import Event, Job, event_of
from backupsync.kube import names
from backupsync.spec.job import KIND

_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


def events_of(connection: Connection, job: Job) -> list[Event]:
    """Return the Events that the cluster keeps of this job, its pods and its claim, oldest first."""
    path = paths.core(job.namespace, "events")
    found = connection.request("GET", path, f"events of job {job.name}").get("items") or []
    events = [event_of(document) for document in found if belongs(document, job)]
    # The pods of an earlier job of this name had the same names.
    own = [event for event in events if not (event.time and job.created and event.time < job.created)]
    return sorted(own, key=lambda event: event.time or _LONG_AGO)


def belongs(event: dict[str, object], job: Job) -> bool:
    """Whether an Event is about the job (and not about an earlier one of its name) or about a part of it."""
    about = event.get("involvedObject")
    if not isinstance(about, dict):
        return False
    kind, name = about.get("kind"), str(about.get("name", ""))
    if kind == KIND:
        return name == job.name and about.get("uid") in (job.uid, None, "")
    if kind == "PersistentVolumeClaim":
        return name == names.claim_name(job.name)
    pod = rf"{re.escape(job.name)}-(worker-\d+-\d+|aggregator-\d+)"
    return kind == "Pod" and re.fullmatch(pod, name) is not None
