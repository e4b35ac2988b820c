"""How far one operator goes: many jobs at once, on nodes that KWOK plays, with stub aggregators.

Everything is real but kubelets, containers and aggregators: the API server, the chart's operator in its pod
with the chart's limits. Pods are bound by `nodeName`, so no scheduler stands in between. What happened when
is read from the API server's audit log; durations of reconciliations from the operator's histogram; memory
from its process.
"""

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import audit
import jobs
import matplotlib.pyplot as plt
from pages import buckets, quantile, sample
from place import ROOT, Place, load_average
from rich.console import Console
from rich.table import Table

from cluster.shell import run
from support.api import Object, name_of, path_of

PODS: Final = "10.193.0.0/16"
"""Addresses of the fake pods, all of them led to the stub on the node of the operator."""
NODES: Final = 10
WORKERS, BACKUP = 7, 2
"""With the aggregator ten pods."""
STEADY_SECONDS: Final = 30.0
DEADLINE: Final = 900.0


def measure(where: Place, counts: list[int]) -> list[dict[str, Any]]:
    """One point per number of jobs, each with an operator that has just started."""
    with _fakes(where) as nodes:
        return [_point(where, nodes, count) for count in counts]


def _point(where: Place, nodes: list[str], count: int) -> dict[str, Any]:
    namespace = f"scale-{count}-{int(time.time())}"
    jobs.in_namespace(where, namespace, "none")
    _restart(where)
    before, idle = where.operator.page("metrics"), _cpu(where)
    began = time.time()
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(_create, where, namespace, index, nodes) for index in range(count)]:
            done.result()
    created = time.time()
    _wait(where, count)
    running, cpu = time.time(), _cpu(where)
    time.sleep(STEADY_SECONDS)
    after, used = where.operator.page("metrics"), _cpu(where) - cpu
    steady = time.time() - running
    mine = [w for w in audit.read(where.audit) if w.namespace == namespace]
    point = {
        "jobs": count,
        "pods": count * (1 + WORKERS + BACKUP),
        "load": load_average(),
        "submitted_seconds": created - began,
        "reconcile_p50_seconds": quantile(buckets(before), buckets(after), 0.5),
        "reconcile_p99_seconds": quantile(buckets(before), buckets(after), 0.99),
        "overlapping_reconciles": sample(after, "backupsync_operator_overlapping_reconciles_total"),
        **_times(mine, began, count),
        **_memory(where),
        "cpu_seconds_to_converge": cpu - idle,
        "steady_cpu": used / steady,
        "steady_writes_per_second": sum(w.at >= running for w in mine) / steady,
        "writes": audit.counted(mine),
    }
    _console.print(f"  {count} jobs: {json.dumps({k: v for k, v in point.items() if k != 'writes'})}")
    _clear(where, namespace)
    return point


def _times(mine: list[audit.Write], began: float, count: int) -> dict[str, Any]:
    """When all pods had been created, and when the jobs were running, by the API server's clock."""
    pods = [w.at - began for w in mine if w.what == "create pods"]
    running = sorted(w.at - began for w in mine if w.state == "Running")
    assert len(running) >= count, f"{len(running)} of {count} jobs said Running"
    return {
        "pods_created_seconds": max(pods),
        "converged_seconds": running[-1],
        "running_median_seconds": statistics.median(running),
    }


def _create(where: Place, namespace: str, index: int, nodes: list[str]) -> None:
    manifest = jobs.fake(f"job-{index}", WORKERS, BACKUP, nodes[index % len(nodes)])
    where.api.create("job", namespace, manifest)


def _wait(where: Place, count: int) -> None:
    until = time.time() + DEADLINE
    while time.time() < until:
        page = where.operator.page("metrics")
        if sample(page, 'backupsync_operator_jobs{state="Running"}') >= count:
            return
        time.sleep(1.0)
    raise TimeoutError(f"{count} jobs were not running after {DEADLINE:g} s")


def _restart(where: Place) -> None:
    before = {name_of(pod) for pod in where.operator.pods()}
    run(where.kubectl("-n", "backupsync-system", "rollout", "restart", "deployment"))
    run(
        where.kubectl("-n", "backupsync-system", "rollout", "status", "deployment", "--timeout=120s"),
        timeout=150,
    )
    until = time.time() + 120
    while (pod := where.operator.wait_until_ready()) and name_of(pod) in before and time.time() < until:
        time.sleep(0.5)


def _clear(where: Place, namespace: str) -> None:
    """Delete everything of a point; returns when it is gone."""
    for kind in ("job", "pod"):
        path = path_of(kind, namespace) + "?gracePeriodSeconds=0&propagationPolicy=Background"
        where.api.raw("DELETE", path, timeout=300)
    run(where.kubectl("delete", "namespace", namespace, "--timeout=600s"), timeout=620)


# ---- the operator's process


def _pid(where: Place) -> int:
    uid = where.operator.wait_until_ready()["metadata"]["uid"]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "cgroup").read_text(), (process / "cmdline").read_text()
        except OSError:
            continue
        if uid in told[0] and "backupsync_operator" in told[1]:
            return int(process.name)
    raise LookupError(f"no process of the operator's pod {uid} on this machine")


def _memory(where: Place) -> dict[str, float]:
    told = Path(f"/proc/{_pid(where)}/status").read_text()
    kib = {key: int(re.search(rf"^{key}:\s+(\d+)", told, re.M)[1]) for key in ("VmRSS", "VmHWM")}  # type: ignore[index]
    return {"rss_mib": kib["VmRSS"] / 1024, "rss_peak_mib": kib["VmHWM"] / 1024}


def _cpu(where: Place) -> float:
    """Seconds of CPU that the operator has used."""
    words = Path(f"/proc/{_pid(where)}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / 100  # clock ticks, proc(5)


# ---- nodes and pods that nobody runs


@contextmanager
def _fakes(where: Place) -> Iterator[list[str]]:
    """KWOK with its nodes, the stub, and the route that leads to it; the names of the nodes."""
    settings = where.cluster.settings
    node = where.cluster.network.namespace(str(where.operator.wait_until_ready()["spec"]["nodeName"]))
    run(["ip", "-n", node, "route", "replace", "local", PODS, "dev", "lo"])
    kubeconfig, lease = settings.kubeconfig, settings.clocks.lease_seconds
    kwok = [settings.bin / "kwok", f"--kubeconfig={kubeconfig}", "--manage-all-nodes=false", f"--cidr={PODS}"]
    kwok += [f"--config={Path(__file__).with_name('stages.yaml')}"]
    kwok += [f"--manage-nodes-with-label-selector={jobs.FAKE_NODE}", f"--node-lease-duration-seconds={lease}"]
    stub = ["nsenter", f"--net=/run/netns/{node}", sys.executable, Path(__file__).with_name("stub.py")]
    stub += [settings.bin / "kubectl", kubeconfig]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
    with _running(kwok, settings.log / "kwok.log"), _running(stub, settings.log / "stub.log", environment):
        # Never names of an earlier run: the Leases of its nodes may still be on their way out.
        names = [f"fake-{int(time.time())}-{i}" for i in range(NODES)]
        body = {"apiVersion": "v1", "kind": "List", "items": [_node(name) for name in names]}
        run(where.kubectl("apply", "-f", "-"), stdin=json.dumps(body))
        try:
            run(
                where.kubectl(
                    "wait", "nodes", "-l", jobs.FAKE_NODE, "--for=condition=Ready", "--timeout=60s"
                ),
                timeout=70,
            )
            yield names
        finally:
            run(where.kubectl("delete", "nodes", "-l", jobs.FAKE_NODE), timeout=120)
            run(["ip", "-n", node, "route", "del", "local", PODS, "dev", "lo"], check=False)


def _node(name: str) -> Object:
    taint = {"key": jobs.FAKE_NODE, "effect": "NoSchedule"}
    room = {"cpu": "1000", "memory": "1000Gi", "pods": "1000"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {jobs.FAKE_NODE: "", "kubernetes.io/hostname": name}},
        "spec": {"taints": [taint]},
        "status": {"capacity": room, "allocatable": room},
    }


@contextmanager
def _running(command: list[Any], log: Path, environment: dict[str, str] | None = None) -> Iterator[None]:
    with log.open("w") as out:
        process = subprocess.Popen([str(w) for w in command], stdout=out, stderr=out, env=environment)
        try:
            yield
        finally:
            process.terminate()
            process.wait(10)


# ---- what is shown

_console = Console(width=110)


def show(points: list[dict[str, Any]]) -> None:
    """Print the curve as a table."""
    columns = (
        "jobs",
        "pods",
        "pods created",
        "all Running",
        "reconcile p50",
        "p99",
        "RSS",
        "peak",
        "CPU",
        "writes/s",
    )
    table = Table(*columns, title="One operator, jobs of ten pods on KWOK nodes")
    for p in points:
        table.add_row(
            *(str(p["jobs"]), str(p["pods"])),
            *(f"{p['pods_created_seconds']:.1f} s", f"{p['converged_seconds']:.1f} s"),
            *(f"{p['reconcile_p50_seconds'] * 1e3:.0f} ms", f"{p['reconcile_p99_seconds'] * 1e3:.0f} ms"),
            *(f"{p['rss_mib']:.0f} MiB", f"{p['rss_peak_mib']:.0f} MiB"),
            *(f"{p['steady_cpu'] * 100:.0f} %", f"{p['steady_writes_per_second']:.1f}"),
        )
    _console.print(table)


def plot(points: list[dict[str, Any]], file: Path) -> None:
    """Draw the curve: seconds to converge, reconciliations, memory."""
    x = [p["jobs"] for p in points]
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    axes[0].plot(x, [p["converged_seconds"] for p in points], "o-", label="all Running")
    axes[0].plot(x, [p["pods_created_seconds"] for p in points], "s--", label="all pods created")
    axes[0].set(title="Time to converge", ylabel="seconds")
    axes[1].plot(x, [p["reconcile_p99_seconds"] for p in points], "o-", label="p99")
    axes[1].plot(x, [p["reconcile_p50_seconds"] for p in points], "s--", label="median")
    axes[1].axhline(1.0, color="grey", linestyle=":", label="goal for p99")
    axes[1].set(title="One reconciliation", ylabel="seconds", yscale="log")
    axes[2].plot(x, [p["rss_peak_mib"] for p in points], "o-", label="peak")
    axes[2].plot(x, [p["rss_mib"] for p in points], "s--", label="steady")
    axes[2].axhline(300, color="grey", linestyle=":", label="goal")
    axes[2].set(title="Operator, resident memory", ylabel="MiB")
    for axis in axes:
        axis.set(xlabel="jobs of ten pods", xlim=(0, None))
        axis.legend(frameon=False)
        axis.grid(alpha=0.3)
    for axis in (axes[0], axes[2]):
        axis.set_ylim(0, None)
    figure.savefig(file, dpi=130)
    plt.close(figure)
