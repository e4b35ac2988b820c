"""`make bench-cluster`: what a job costs on a real cluster, and how far one operator goes. Nothing is judged.

1. Seconds from apply to the first iteration, by phase; writes to the API server up to Running over the
   ideal; writes per minute of a job that merely runs. Real kubelets, real training.
2. 50, 100 and 200 jobs of ten pods on nodes that KWOK plays, with stub aggregators: seconds to converge,
   duration of reconciliations, memory of the operator.

Needs root, a Linux machine and the images of `make images`. Seconds are worth what else the machine does: its
load stands beside them.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import jobs
import phases
import scale
import writes
from pages import sample
from place import ROOT, VALUES, Place, commit, load_average, place
from rich.console import Console
from rich.table import Table

say = Console(width=110).print


def apply_bench(where: Place, repeats: int, steady_seconds: float) -> dict[str, Any]:
    """Bring the digits to their first iteration, several times over; let the last job run on."""
    workers, backup = 4, 2
    took: list[dict[str, float]] = []
    costs: list[dict[str, Any]] = []
    resting: dict[str, Any] = {}
    for turn in range(repeats):
        job = jobs.in_namespace(where, f"bench-{int(time.time())}-{turn}", "digits")
        manifest = jobs.digits(workers, backup, 1_000_000)
        took.append(phases.measure(where, job, manifest) | {"load": load_average()[0]})
        costs.append(writes.to_running(where, job, manifest))
        say(
            f"  turn {turn + 1}: first iteration after {took[-1]['total']:.1f} s, load {took[-1]['load']:.1f}"
        )
        if turn == repeats - 1 and steady_seconds:
            resting = writes.steady(where, job, steady_seconds)
        job.delete()
        job.wait_until_gone()
        where.api.delete("namespace", None, job.namespace)
    page = where.operator.page("metrics")
    overlaps = sample(page, "backupsync_operator_overlapping_reconciles_total")
    return {
        "workers": workers,
        "backupWorkers": backup,
        "turns": took,
        "to_running": costs,
        "steady": resting,
        "overlapping_reconciles": overlaps,
    }


def show_apply(result: dict[str, Any]) -> None:
    """Print the phases, the writes and the steady state."""
    table = Table("phase", "median", "range", title="From apply to the first iteration (seconds)")
    for phase in (*phases.PHASES, "total", "running"):
        seconds = [turn[phase] for turn in result["turns"]]
        said = phases.TEXT.get(
            phase, {"total": "together", "running": "apply → status says Running"}.get(phase)
        )
        table.add_row(said, f"{statistics.median(seconds):.2f}", f"{min(seconds):.2f}-{max(seconds):.2f}")
    say(table)
    ratios = [cost["ratio"] for cost in result["to_running"]]
    last = result["to_running"][-1]
    say(
        f"writes up to Running over the ideal: {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f}-{max(ratios):.2f}; ideal {last['ideal']}, events besides: {last['events']})"
    )
    say(f"  {last['writes']}")
    if resting := result["steady"]:
        say(f"writes per minute of a running job, progress apart: {resting['other_writes_per_minute']:g}")
        say(f"  progress: {resting['progress_writes_per_minute']:g} per minute; other: {resting['other']}")
    say(f"overlapping reconciliations: {result['overlapping_reconciles']:g}")


def main() -> None:
    """Measure, print, and write cluster.json and cluster-scale.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results")
    parser.add_argument("--tag", default="0.1.0", help="tag of the images")
    parser.add_argument("--operator-tag", help="tag of the operator's image, where it is another")
    parser.add_argument("--set", action="append", default=[], help="further values of the chart")
    parser.add_argument("--repeats", type=int, default=5, help="turns from apply to the first iteration")
    parser.add_argument("--steady", type=float, default=60.0, help="seconds a job is watched while it runs")
    parser.add_argument("--jobs", type=int, nargs="*", default=[50, 100, 200], help="jobs on KWOK nodes")
    parser.add_argument("--keep", action="store_true", help="leave the cluster running")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    tags = dict.fromkeys(VALUES, args.tag) | {"operator": args.operator_tag or args.tag}
    with place(tags, args.set, 1, args.keep) as where:
        about = {"commit": commit(), "values": args.set, "load_before": load_average()}
        if args.repeats:
            result = about | apply_bench(where, args.repeats, args.steady)
            show_apply(result)
            (args.out / "cluster.json").write_text(json.dumps(result, indent=1) + "\n")
        if args.jobs:
            points = scale.measure(where, args.jobs)
            scale.show(points)
            text = json.dumps(about | {"points": points}, indent=1)
            (args.out / "cluster-scale.json").write_text(text + "\n")
            scale.plot(points, args.out / "cluster-scale.png")


if __name__ == "__main__":
    main()
