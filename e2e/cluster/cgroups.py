"""Control groups: one per cluster, with one per machine in it, so that its processes and pods can be weighed.

In hierarchies of version 1 (also "hybrid") each controller has its own tree; version 2 has one tree, where
kubelet and runc pass on the controllers themselves, all the way down.
"""

from pathlib import Path

from cluster.errors import ClusterError
from cluster.shell import until

ROOT = Path("/sys/fs/cgroup")
CONTROLLERS = (
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "pids",
    "blkio",
    "devices",
    "freezer",
    "systemd",
    "hugetlb",
    "unified",
)


def trees() -> list[Path]:
    """Top of every hierarchy that a kubelet looks at."""
    if (ROOT / "cgroup.controllers").exists():
        return [ROOT]
    return [ROOT / name for name in CONTROLLERS if (ROOT / name).is_dir()]


def make(group: str) -> list[Path]:
    """Make a group in every hierarchy; its directories."""
    found = trees()
    if not found:
        raise ClusterError(f"no control groups under {ROOT}: mount them, or run where a container may nest")
    for top in found:
        place = top
        for part in group.split("/"):
            place = _make(place / part)
    return [top / group for top in found]


def _make(place: Path) -> Path:
    parent = place.parent
    place.mkdir(exist_ok=True)
    for file in ("cpuset.cpus", "cpuset.mems"):  # version 1 starts them empty, and lets nobody in
        if (place / file).exists() and not (place / file).read_text().strip():
            (place / file).write_text((parent / file).read_text())
    return place


def remove(group: str) -> None:
    """Remove a group with all groups in it. Its processes must have ended."""

    def removed() -> bool:
        for top in trees():
            for place in sorted((top / group).glob("**/"), reverse=True):
                place.rmdir()
        return not any((top / group).exists() for top in trees())

    if any((top / group).exists() for top in trees()):
        until(removed, f"the control group {group} to be empty", timeout=20)
