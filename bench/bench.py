"""`make bench`: what an iteration costs here and under PyTorch DDP over gloo, side by side.

Same model, same optimizer, same number of processes that compute, no stragglers, b = 0, float32, plain text.
The two take turns, so that a drift of the machine's speed hits both; the figure is the ratio within a turn,
as the median and range over the turns. Nothing is judged: the command exits 0 when it could measure.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
WARM_UP = 10


def ours(workers: int, parameters: int, iterations: int, transport: str, directory: Path) -> float:
    """Median seconds of an iteration under `backupsync run`."""
    job = {
        "apiVersion": "backupsync.dev/v1alpha1",
        "kind": "BackupSyncJob",
        "metadata": {"name": f"bench-{transport.lower()}-{workers}x{parameters}"},
        "spec": {
            "program": {"entrypoint": "wide:Wide", "args": {"million_parameters": parameters}},
            "aggregation": {"mode": "Sync", "workers": workers, "wire": {"transport": transport}},
            "training": {
                "iterations": iterations + WARM_UP,
                "batchSize": 1,
                "threads": 1,
                "optimizer": {"name": "SGD", "lr": 1e-3, "momentum": 0.9},
            },
            "checkpoint": {"everyIterations": 1_000_000, "path": str(directory / "checkpoints")},
        },
    }
    manifest, trace = directory / "job.yaml", directory / "trace.jsonl"
    manifest.write_text(yaml.safe_dump(job))
    trace.unlink(missing_ok=True)
    command = [sys.executable, "-m", "backupsync.cli", "run", str(manifest), "--replace", "--quiet"]
    command += ["--trace", str(trace), "--state-dir", str(directory / "state")]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    answer = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if answer.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{answer.stderr}")
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    seconds = [line["seconds"] for line in lines if line["kind"] == "iteration"]
    return statistics.median(seconds[WARM_UP:])


def ddp(workers: int, parameters: int, iterations: int) -> float:
    """Median seconds of an iteration under DistributedDataParallel."""
    command = [sys.executable, str(HERE / "ddp_peer.py"), "--workers", str(workers)]
    command += ["--parameters", str(parameters), "--iterations", str(iterations)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(answer.stdout.splitlines()[-1])["iteration_seconds"])


def measure(workers: int, parameters: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Take turns and return one row per transport."""
    turns: dict[str, list[tuple[float, float]]] = {"Tcp": [], "Ipc": []}
    for _ in range(args.repeats):
        peer = ddp(workers, parameters, args.iterations)
        for transport, pairs in turns.items():
            with tempfile.TemporaryDirectory() as directory:
                mine = ours(workers, parameters, args.iterations, transport, Path(directory))
            pairs.append((mine, peer))
    return [row(f"iteration / DDP, {t}", workers, parameters, pairs) for t, pairs in turns.items()]


def row(name: str, workers: int, parameters: int, pairs: list[tuple[float, float]]) -> dict[str, Any]:
    """One figure: the ratio ours / theirs as median and range over the turns."""
    ratios = [mine / peer for mine, peer in pairs]
    return {
        "name": f"{name}, {workers} workers, {parameters} M parameters",
        "unit": "ratio",
        "goal": "",
        "median": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "peer": "torch DDP, gloo",
        "ours_seconds": statistics.median(mine for mine, _ in pairs),
        "peer_seconds": statistics.median(peer for _, peer in pairs),
    }


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {"cpus": os.cpu_count(), "machine": platform.machine(), "torch": torch.__version__}


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    table = Table("what", "ours", "DDP", "ratio", "range", title="Cost of one iteration")
    for item in rows:
        table.add_row(
            item["name"].removeprefix("iteration / DDP, "),
            f"{item['ours_seconds'] * 1e3:.1f} ms",
            f"{item['peer_seconds'] * 1e3:.1f} ms",
            f"{item['median']:.2f}",
            f"{item['low']:.2f}-{item['high']:.2f}",
        )
    Console().print(table)


def main() -> None:
    """Measure, print and write summary.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench/results"))
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--parameters", type=int, nargs="+", default=[1, 5], help="million parameters")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=40)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = [figure for w in args.workers for p in args.parameters for figure in measure(w, p, args)]
    show(rows)
    (args.out / "machine.json").write_text(json.dumps(machine(), indent=1) + "\n")
    (args.out / "summary.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(f"written: {args.out / 'summary.json'}")


if __name__ == "__main__":
    main()
