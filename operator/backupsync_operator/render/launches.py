"""What a pod's container is told: its launch structure as environment, and nothing it need not know."""

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from backupsync.control import Desired, DesiredMember
from backupsync.kube import names
from backupsync.launch import NODE_VARIABLE, AggregatorLaunch, WorkerLaunch, to_environment
from backupsync.lifecycle.types import ReplicaId
from backupsync_operator.render.context import JobContext
from backupsync_operator.render.objects import wire_port

_SUFFIXES = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3}
"""Suffixes of CPU quantities (Kubernetes API reference, Quantity)."""


def environment(context: JobContext, replica: ReplicaId, threads: dict[str, int]) -> list[dict[str, Any]]:
    """Return the variables of `replica`'s container; `threads` by role."""
    if replica.role == "worker":
        launched = to_environment(_worker(context, replica, threads["worker"]))
    else:
        launched = to_environment(_aggregator(context, replica, threads))
    node = {"name": NODE_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    # A kubelet expands $(NAME) and takes $$ for $: so every dollar is doubled.
    return [node, *({"name": k, "value": v.replace("$", "$$")} for k, v in launched.items())]


def threads_of(container: Mapping[str, Any]) -> int:
    """Intra-op threads for a container: its whole CPUs, by limit or else by request; 1 where it says none."""
    resources = container.get("resources") or {}
    for kind in ("limits", "requests"):
        cpu = (resources.get(kind) or {}).get("cpu")
        if cpu is not None:
            return max(1, math.ceil(_cpus(str(cpu)) - 1e-9))
    return 1


def _cpus(quantity: str) -> float:
    number = quantity.rstrip("numk")
    try:
        return float(number) * _SUFFIXES[quantity[len(number) :]]
    except (KeyError, ValueError):
        return 1.0  # the API server will refuse the pod in its own words


def _worker(context: JobContext, replica: ReplicaId, threads: int) -> WorkerLaunch:
    host = f"{names.service_name(context.name)}.{context.namespace}.svc"
    return WorkerLaunch(
        **_common(context),
        endpoint=f"tcp://{host}:{wire_port(context)}",
        rank=replica.rank,
        attempt=replica.attempt,
        restart_in_place="exec",
        scratch_directory=names.SCRATCH_DIRECTORY,
        metrics_port=names.METRICS_PORT,
        threads=threads,
    )


def _aggregator(context: JobContext, replica: ReplicaId, threads: dict[str, int]) -> AggregatorLaunch:
    place = context.place
    traces = place.directory if place.durable else names.SCRATCH_DIRECTORY
    # A file per epoch: a predecessor that is cut off still writes to its own. Together, in the order of their
    # names, they are one trace.
    trace = f"{traces}/trace-epoch-{replica.attempt:08d}.jsonl"
    return AggregatorLaunch(
        **_common(context),
        endpoint=f"tcp://*:{wire_port(context)}",
        epoch=replica.attempt,
        desired=msgspec.to_builtins(context.status.desired or _first_desired(context)),
        begun=context.status.begun,
        checkpoint_directory=place.directory,
        http_host="*",
        http_port=names.HTTP_PORT,
        trace_file=trace,
        worker_threads=threads["worker"],
        threads=threads["aggregator"],
    )


def _common(context: JobContext) -> dict[str, Any]:
    return {
        "job": context.name,
        "uid": context.uid,
        "manifest": _manifest(context),
        "key_file": f"{names.KEY_DIRECTORY}/key",
        "log_format": context.log_format,
    }


def _manifest(context: JobContext) -> dict[str, Any]:
    """The manifest without what only the operator needs: templates, and notes of other tools."""
    manifest: dict[str, Any] = context.job.model_dump(mode="json", by_alias=True)
    spec = manifest["spec"]
    spec["worker"]["template"] = spec["aggregator"]["template"] = None
    spec["checkpoint"]["volumeClaimTemplate"] = None
    manifest["metadata"]["annotations"] = {}
    return manifest


def _first_desired(context: JobContext) -> Desired:
    aggregation = context.job.spec.aggregation
    return Desired(
        term=0,
        generation=0,
        members=tuple(DesiredMember(rank, 1) for rank in range(aggregation.total)),
        workers=aggregation.workers,
        backup_workers=aggregation.backup_workers,
    )
