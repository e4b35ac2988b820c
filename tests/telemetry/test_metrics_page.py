"""docs/reference/metrics.md lists what is really exported. BACKUPSYNC_WRITE_PAGES=1 writes it anew."""

import os
from pathlib import Path

import pytest
from prometheus_client.metrics import MetricWrapperBase

from backupsync_aggregator.telemetry.metrics import Metrics
from backupsync_worker.metrics import WorkerMetrics

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "metrics.md"
HEAD = """\
<!-- Made by `BACKUPSYNC_WRITE_PAGES=1 pytest tests/telemetry`; do not edit. -->

# Metrics

Every process of a job serves `/metrics`; `backupsync metrics JOB --local` prints where, and with `-o json` as
targets for Prometheus' `file_sd`. Names follow the Prometheus conventions: base units, `_total` for counters.
No label says which job or pod a series is of: that is for the target labels of whoever scrapes it. `rank` and
`attempt` name a worker's slot and process; they are as many as the job has workers, and the series of an
attempt end with it.
"""


def exported(owner: object) -> list[MetricWrapperBase]:
    metrics = [value for value in vars(owner).values() if isinstance(value, MetricWrapperBase)]
    return sorted(metrics, key=lambda metric: metric.describe()[0].name)


def table(title: str, owner: object) -> list[str]:
    rows = [f"\n## {title}\n", "| metric | type | labels | |", "|---|---|---|---|"]
    for metric in exported(owner):
        family = metric.describe()[0]
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = ", ".join(f"`{label}`" for label in metric._labelnames)
        rows.append(f"| `{name}` | {family.type} | {labels} | {family.documentation.rstrip('.')} |")
    return rows


def page() -> str:
    return HEAD + "\n".join([*table("Aggregator", Metrics()), *table("Worker", WorkerMetrics())]) + "\n"


def test_the_page_lists_every_metric():
    if os.environ.get("BACKUPSYNC_WRITE_PAGES"):
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page(), "BACKUPSYNC_WRITE_PAGES=1 pytest tests/telemetry"


@pytest.mark.parametrize("owner", [Metrics(), WorkerMetrics()], ids=["aggregator", "worker"])
def test_every_metric_is_described_and_named_by_the_conventions(owner):
    assert exported(owner)
    for metric in exported(owner):
        family = metric.describe()[0]
        assert family.name.startswith("backupsync_")
        assert family.documentation
        assert not family.name.endswith(("_ms", "_milliseconds", "_kb", "_mb", "_minutes"))
        assert not {"job", "pod", "instance", "uid", "iteration"} & set(metric._labelnames), "unbounded"
