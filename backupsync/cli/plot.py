"""`backupsync plot`: reports and traces as one picture."""

from pathlib import Path
from typing import Annotated

import typer

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
    reports = [_report(path) for path in runs]
    # matplotlib takes a second to import; nothing else here needs it.
    from backupsync.plotting import plot as draw  # noqa: PLC0415

    draw(reports, output)
    typer.echo(str(output))


def _report(path: Path) -> Report:
    return from_trace(read_trace(path)) if path.suffix == ".jsonl" else read_report(path)
