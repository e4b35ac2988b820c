"""What the operator wrote, by the API server's own audit log: counted, and told from progress.

The project's own cluster records every write of the operator's service account, and of a job's status the
patch itself (e2e/cluster/config/audit.yaml). The Lease is no job's and is left out.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

_FIGURES = {"progress", "ranks", "workers", "aggregator"}
_MEMORY = {"progress", "observed_at", "active_seconds", "ranks"}


class Write(NamedTuple):
    """One write that the API server answered."""

    at: float
    """Unix seconds at which it was received."""
    verb: str
    resource: str
    """With its subresource, such as backupsyncjobs/status."""
    namespace: str
    name: str
    code: int
    patch: dict[str, Any] | None

    @property
    def what(self) -> str:
        """Verb and resource, and the code where it was refused."""
        said = f"{self.verb} {self.resource}"
        return said if self.code < 400 else f"{said} ({self.code})"

    @property
    def state(self) -> str:
        """The state that a status patch brings the job to; empty where it says nothing of it."""
        return str(((self.patch or {}).get("status") or {}).get("state") or "")

    @property
    def progress_only(self) -> bool:
        """Whether it patches a status with nothing but figures."""
        if not self.resource.startswith("backupsyncjobs") or self.patch is None:
            return False
        status = self.patch.get("status") or {}
        memory = status.get("memory") or {}
        return status.keys() <= {*_FIGURES, "memory"} and memory.keys() <= _MEMORY


def read(log: Path) -> Iterator[Write]:
    """Every write in an audit log, its rotated parts first; a line still being written is left out."""
    parts = sorted(log.parent.glob(f"{log.stem}-*{log.suffix}"))
    for part in (*parts, log):
        for line in part.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.endswith("}"):
                yield from write_of(json.loads(line))


def write_of(entry: dict[str, Any]) -> Iterator[Write]:
    """The write that an audit entry tells of, if it is one of a job's."""
    reference = entry.get("objectRef") or {}
    resource = "/".join(filter(None, (reference.get("resource"), reference.get("subresource"))))
    if entry.get("stage") != "ResponseComplete" or reference.get("resource") == "leases":
        return
    yield Write(
        datetime.fromisoformat(entry["requestReceivedTimestamp"]).timestamp(),
        str(entry["verb"]),
        resource,
        str(reference.get("namespace") or ""),
        str(reference.get("name") or ""),
        int((entry.get("responseStatus") or {}).get("code") or 0),
        entry.get("requestObject"),
    )


def until_running(writes: Iterable[Write], job: str) -> list[Write]:
    """The writes up to the one that says Running. `writes` are in order, of that job alone."""
    found = []
    for write in writes:
        found.append(write)
        if write.state == "Running" and write.name == job:
            return found
    return []


def transitions(writes: Iterable[Write]) -> int:
    """How many status patches bring the job to another state, or a condition to another status or reason."""
    known: dict[str, Any] = {}
    count = 0
    for status in ((write.patch or {}).get("status") or {} for write in writes):
        told = {c["type"]: (c["status"], c["reason"]) for c in status.get("conditions") or ()}
        told |= {"state": status["state"]} if "state" in status else {}
        count += any(known.get(key) != value for key, value in told.items())
        known |= told
    return count


def counted(writes: Iterable[Write]) -> dict[str, int]:
    """How often what was written, by verb and resource."""
    return dict(sorted(Counter(write.what for write in writes).items()))
