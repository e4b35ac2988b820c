"""The cluster that is measured: one apart from any other, with images and chart and nothing else on it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "e2e"))

from cluster import Cluster, ClusterError  # noqa: E402
from cluster.settings import Clocks, Settings, saved  # noqa: E402
from support.api import Api  # noqa: E402
from support.operator import Operator  # noqa: E402

BLOCK: Final = 92
"""Its addresses are 10.92.0.0/16; the one of `make cluster` has 10.89.0.0/16."""
CLOCKS: Final = Clocks(lease_seconds=40, status_seconds=10, monitor_seconds=5, grace_seconds=40)
"""Kubernetes' own defaults: no node is to be lost because the machine is busy."""
VALUES: Final = {
    "operator": "image.tag",
    "worker": "worker.image.tag",
    "aggregator": "aggregator.image.tag",
}
"""Images of ours, and the chart's values that name their tags."""

__all__ = ["ROOT", "Api", "Cluster", "ClusterError", "Operator", "Place", "place"]


class Place:
    """A running cluster with the operator on it."""

    def __init__(self, cluster: Cluster, api: Api, operator: Operator) -> None:
        self.cluster, self.api, self.operator = cluster, api, operator

    @property
    def audit(self) -> Path:
        """The API server's record of what the operator has written."""
        return self.cluster.settings.log / "audit.log"

    def kubectl(self, *words: str) -> list[str]:
        """A command line of kubectl for this cluster."""
        binary = self.cluster.settings.bin / "kubectl"
        return [str(binary), f"--kubeconfig={self.cluster.settings.kubeconfig}", *words]


@contextmanager
def place(tags: dict[str, str], values: list[str], nodes: int, keep: bool) -> Iterator[Place]:
    """Boot the cluster (or find it), load the images, install the chart; taken down again unless `keep`."""
    home = ROOT / "out" / "bench-cluster"
    cluster = Cluster(saved(home) or Settings(home, ROOT / ".cluster", BLOCK, CLOCKS))
    found = cluster.is_running()
    try:
        if not found:
            cluster.up(nodes)
        names = [f"localhost/backupsync-{role}:{tag}" for role, tag in tags.items()]
        if missing := [name for name in names if name not in cluster.loaded()]:
            cluster.load(*missing)
        with Api(cluster.settings.kubeconfig) as api:
            operator = Operator(api, [*(f"{VALUES[role]}={tag}" for role, tag in tags.items()), *values])
            operator.install()
            operator.wait_until_ready()
            yield Place(cluster, api, operator)
    finally:
        if not (keep or found):
            cluster.down()


def load_average() -> list[float]:
    """Load of the machine over the last 1, 5 and 15 minutes: what figures of seconds are worth."""
    return [float(word) for word in Path("/proc/loadavg").read_text().split()[:3]]


def commit() -> str:
    """What was measured, as `git describe` has it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
