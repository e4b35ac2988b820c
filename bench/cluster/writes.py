"""What a job costs the API server: writes from its creation to Running, and of a job that merely runs."""

import time
from typing import Any

import audit
from place import Place

from support.job import Job

SETTLE_SECONDS = 20.0
"""After Running, until the events are written and every worker has been seen."""


def ideal(manifest: dict[str, Any]) -> dict[str, int]:
    """The fewest writes that make the objects of this job: one for each."""
    aggregation = manifest["spec"]["aggregation"]
    backup = aggregation.get("backupWorkers", 0)
    made = {
        "create pods": 1 + aggregation["workers"] + backup,
        "create services": 1,
        "create secrets": 1,
    }
    if backup:
        made["create poddisruptionbudgets"] = 1
    if manifest["spec"].get("checkpoint", {}).get("volumeClaimTemplate"):
        made["create persistentvolumeclaims"] = 1
    return made


def to_running(place: Place, job: Job, manifest: dict[str, Any]) -> dict[str, Any]:
    """Count the writes of a job that has come to Running, and divide by the ideal: one per object and per
    transition of its status (its state, or a condition's status or reason). Events stand apart.
    """
    time.sleep(1.0)  # an event is written beside the status, and after it
    mine = [w for w in audit.read(place.audit) if w.namespace == job.namespace]
    found = audit.until_running(mine, job.name)
    events = [write for write in mine if write.resource == "events"]
    counted = audit.counted(write for write in found if write.resource != "events")
    transitions = audit.transitions(found)
    least = sum(ideal(manifest).values()) + transitions
    total = sum(counted.values())
    return {
        "writes": counted,
        "total": total,
        "transitions": transitions,
        "ideal": least,
        "ratio": total / least,
        "events": len(events),
    }


def steady(place: Place, job: Job, seconds: float) -> dict[str, Any]:
    """Count the writes of a job that runs and does not change, progress apart."""
    time.sleep(SETTLE_SECONDS)
    since = time.time()
    time.sleep(seconds)
    until = time.time()
    mine = [w for w in audit.read(place.audit) if w.namespace == job.namespace and since <= w.at < until]
    other = [write for write in mine if not write.progress_only]
    return {
        "seconds": seconds,
        "progress_writes_per_minute": (len(mine) - len(other)) * 60 / seconds,
        "other_writes_per_minute": len(other) * 60 / seconds,
        "other": audit.counted(other),
        "patched": sorted({key for write in other for key in ((write.patch or {}).get("status") or {})}),
    }
