"""Reading the operator's metrics page. Pure."""

import re
from typing import Final

_BUCKET: Final = re.compile(
    r'^backupsync_operator_reconcile_seconds_bucket\{le="([^"]+)",outcome="\w+"\} (\S+)', re.M
)


def sample(page: str, name: str) -> float:
    """The sample of a metrics page that begins with `name`; 0 where there is none."""
    lines = (line for line in page.splitlines() if line.startswith(f"{name} "))
    return next((float(line.split()[-1]) for line in lines), 0.0)


def buckets(page: str) -> dict[float, float]:
    """The histogram of reconciliations: observations up to each bound, over all outcomes."""
    found: dict[float, float] = {}
    for bound, value in _BUCKET.findall(page):
        found[float(bound)] = found.get(float(bound), 0.0) + float(value)
    return dict(sorted(found.items()))


def quantile(before: dict[float, float], after: dict[float, float], q: float) -> float:
    """The quantile between two readings, interpolated within its bucket as Prometheus does; nan for none."""
    grown = {bound: after[bound] - before.get(bound, 0.0) for bound in after}
    total = grown.get(float("inf"), 0.0)
    below, low = 0.0, 0.0
    for bound, count in grown.items():
        if total and count >= q * total:
            inside = count - below
            return low if bound == float("inf") else low + (bound - low) * (q * total - below) / inside
        below, low = count, bound
    return float("nan")
