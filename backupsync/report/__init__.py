"""The report of a run: one JSON document, made from its trace."""

from backupsync.report.from_trace import from_trace
from backupsync.report.model import (
    Arrival,
    BatchStatistics,
    CurvePoint,
    EvaluationPoint,
    Quantiles,
    Report,
    ReportError,
    Staleness,
    WorkerReport,
    read_report,
)

__all__ = [
    "Arrival",
    "BatchStatistics",
    "CurvePoint",
    "EvaluationPoint",
    "Quantiles",
    "Report",
    "ReportError",
    "Staleness",
    "WorkerReport",
    "from_trace",
    "read_report",
]
