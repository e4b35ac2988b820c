"""`backupsync plot`: reports and traces as one picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from msgspec import structs

from backupsync.report import Report, from_trace, read_report
from backupsync.trace import read_trace


def plot(
    runs: Annotated[
        list[Path], typer.Argument(metavar="REPORT...", help="Reports (or traces, *.jsonl), side by side.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="PICTURE", help="Where it is written: png, svg or pdf.")
    ] = Path("plot.png"),
) -> None:
    """Draw iteration times, arrivals, loss against wall time, accepted and dropped per worker."""
    reports = named_apart([_report(path) for path in runs], [path.stem for path in runs])
    # matplotlib takes a second to import; nothing else here needs it.
    from backupsync.plotting import plot as draw  # noqa: PLC0415

    draw(reports, output)
    typer.echo(str(output))


def named_apart(reports: Sequence[Report], files: Sequence[str]) -> list[Report]:
    """Return the reports, those of one name (two runs of one manifest) named after their files."""
    names = [report.name for report in reports]
    return [
        structs.replace(report, name=f"{report.name}: {file}") if names.count(report.name) > 1 else report
        for report, file in zip(reports, files, strict=True)
    ]


def _report(path: Path) -> Report:
    return from_trace(read_trace(path)) if path.suffix == ".jsonl" else read_report(path)
