"""`make demo`: the digits by N=4 with b=2, by N=6 with b=0, and asynchronously on 6, under equal stragglers.

Runs `backupsync run` three times, to equal examples and with the same seeds, prints the three side by side,
and writes report.json (`runs[]`) and demo.png. The stragglers are those of profile.yaml: every step is
stretched by a Gumbel tail measured in production traces, and rank 5 is 2.36 times slower throughout.

The synchronous runs share one optimizer; its rate grows with the number of averaged gradients. The
asynchronous run has its own, the best of a small sweep: with the others' momentum it hardly trains at all.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
TARGET = 0.95
EVALUATE_EXAMPLES = 1920
ASYNC_TRAINING = {"optimizer": {"name": "SGD", "lr": 0.2}, "scaling": "None"}
RUNS = (
    ("N=4, b=2", {"mode": "BackupSync", "workers": 4, "backupWorkers": 2}),
    ("N=6, b=0", {"mode": "Sync", "workers": 6}),
    ("async on 6", {"mode": "Async", "workers": 6}),
)


def manifest(name: str, aggregation: dict[str, Any], out: Path) -> dict[str, Any]:
    """The digits' manifest with another aggregation, evaluated at equal examples."""
    job = yaml.safe_load((HERE / "digits.yaml").read_text())
    job["metadata"]["name"] = name
    job["spec"]["aggregation"] = aggregation
    if aggregation["mode"] == "Async":
        job["spec"]["training"].update(ASYNC_TRAINING)
    accepted = 1 if aggregation["mode"] == "Async" else aggregation["workers"]
    batch = job["spec"]["training"]["batchSize"]
    job["spec"]["training"]["evaluation"] = {"everyIterations": EVALUATE_EXAMPLES // (accepted * batch)}
    job["spec"]["checkpoint"] = {"path": str(out / name / "checkpoints"), "everyIterations": 100}
    return job


def run(label: str, aggregation: dict[str, Any], out: Path) -> Path:
    """Run one job to its end; return the path of its report."""
    name = "demo-" + aggregation["mode"].lower()
    path = out / f"{name}.yaml"
    path.write_text(yaml.safe_dump(manifest(name, aggregation, out), sort_keys=False))
    report = out / f"{name}.json"
    print(f"\n=== {label} ===", flush=True)
    command = [sys.executable, "-m", "backupsync.cli", "run", str(path), "--replace"]
    command += ["--inject", str(HERE / "profile.yaml"), "--report", str(report)]
    command += ["--trace", str(out / f"{name}.trace.jsonl"), "--state-dir", str(out / "state")]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(HERE.parent)})
    return report


def time_to(report: dict[str, Any], accuracy: float) -> float | None:
    """Wall seconds until an evaluation first reached `accuracy`, None if none did."""
    reached = (
        e["wall_seconds"] for e in report["evaluations"] if e["metrics"].get("accuracy", 0) >= accuracy
    )
    return next(reached, None)


def table(reports: list[dict[str, Any]]) -> Table:
    """The three runs side by side."""
    result = Table(title="The same examples, the same stragglers")
    result.add_column("", justify="left")
    for label, _ in RUNS:
        result.add_column(label, justify="right")

    def row(name: str, cell: Any) -> None:
        result.add_row(name, *(cell(report) for report in reports))

    row("iterations", lambda r: f"{r['iterations']}")
    row("iteration time, median", lambda r: f"{r['iteration_seconds']['p50'] * 1e3:.0f} ms")
    row("iteration time, p99", lambda r: f"{r['iteration_seconds']['p99'] * 1e3:.0f} ms")
    row("ideal order statistic", lambda r: ideal(r, "p50"))
    row("over the ideal", over_ideal)
    row("gradients dropped", lambda r: f"{r['dropped_ratio']:.0%}")
    row("wall time", lambda r: f"{r['wall_seconds']:.1f} s")
    row(f"wall time to {TARGET:.0%}", lambda r: seconds(time_to(r, TARGET)))
    row("test accuracy", lambda r: f"{r['final']['accuracy']:.1%}")
    return result


def ideal(report: dict[str, Any], key: str) -> str:
    """The N-th order statistic of the injected times; an asynchronous update waits for nobody."""
    return f"{report['ideal_seconds'][key] * 1e3:.0f} ms" if report["ideal_seconds"] else "-"


def over_ideal(report: dict[str, Any]) -> str:
    """Median iteration time over the median ideal one."""
    if not report["ideal_seconds"]:
        return "-"
    return f"{report['iteration_seconds']['p50'] / report['ideal_seconds']['p50']:.2f} ×"


def seconds(value: float | None) -> str:
    """A time, or that it was never reached."""
    return "not reached" if value is None else f"{value:.1f} s"


def main() -> None:
    """Run the three, then compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="directory of everything written")
    out: Path = parser.parse_args().out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    paths = [run(label, aggregation, out) for label, aggregation in RUNS]
    reports = [json.loads(path.read_text()) for path in paths]
    (out / "report.json").write_text(json.dumps({"runs": reports}, indent=1))
    picture = out / "demo.png"
    command = [sys.executable, "-m", "backupsync.cli", "plot", *map(str, paths), "-o", str(picture)]
    subprocess.run(command, check=True)
    Console().print(table(reports))
    print(f"report: {out / 'report.json'}\npicture: {picture}")


if __name__ == "__main__":
    main()
