"""Jobs on a cluster: what the commands make of what the client tells."""

from typing import Any

from backupsync.cluster import Client, ClusterError


def metrics_targets(client: Client, name: str) -> list[dict[str, Any]]:
    """Return where /metrics of the running pods are served within the cluster, as file_sd targets."""
    targets = [
        {"targets": [f"{endpoint.address}:{endpoint.port}"], "labels": {"job": name, **endpoint.labels}}
        for endpoint in client.endpoints(name)
    ]
    if not targets:
        raise ClusterError(f"job {name}: no pod of it runs, so nothing serves its metrics")
    return targets
