"""What to keep of a test that failed: its namespace's objects, events and logs, and the cluster's logs."""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cluster.errors import ClusterError

if TYPE_CHECKING:
    from cluster.cluster import Cluster

KINDS: Final = "all,events,configmaps,persistentvolumeclaims,poddisruptionbudgets,leases,endpointslices"


def collect(cluster: "Cluster", namespace: str, target: Path, *, also: str = "") -> None:
    """Write what there is to know about a namespace into a directory. Never fails: the test already has."""
    target.mkdir(parents=True, exist_ok=True)
    kinds = f"{KINDS},{also}" if also else KINDS
    _keep(cluster, target / "get.txt", "get", kinds, "-n", namespace, "-o", "wide")
    _keep(cluster, target / "describe.txt", "describe", kinds, "-n", namespace)
    _keep(cluster, target / "objects.yaml", "get", kinds, "-n", namespace, "-o", "yaml")
    _keep(cluster, target / "events.txt", "get", "events", "-n", namespace, "--sort-by=.lastTimestamp")
    _keep(cluster, target / "nodes.txt", "describe", "nodes")
    with suppress(ClusterError, ValueError):
        pods = json.loads(cluster.kubectl("get", "pods", "-n", namespace, "-o", "json"))["items"]
        for name in (pod["metadata"]["name"] for pod in pods):
            common = ["logs", name, "-n", namespace, "--all-containers", "--prefix"]
            _keep(cluster, target / "pods" / f"{name}.log", *common)
    with suppress(OSError):
        shutil.copytree(cluster.settings.log, target / "cluster", dirs_exist_ok=True)


def _keep(cluster: "Cluster", file: Path, *words: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        file.write_text(cluster.kubectl(*words))
    except ClusterError as error:
        file.write_text(f"{error}\n")
