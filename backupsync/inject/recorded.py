"""Recorded step times from CSV or JSONL: columns iteration, rank and seconds."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

Times = dict[int, list[float | None]]
Said = tuple[str, str, str]
"""Where, the value, and what is wrong with it."""

COLUMNS: Final = ("iteration", "rank", "seconds")
MAX_ROWS: Final = 200_000
MAX_ITERATION: Final = 1_000_000
MAX_PROBLEMS: Final = 20


def read_recorded(path: Path) -> tuple[Times, list[Said]]:
    """Return the step times by rank and iteration, and everything wrong with the file, by line."""
    times: Times = {}
    problems: list[Said] = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = _csv(file) if path.suffix == ".csv" else _jsonl(file)
            for count, (line, row) in enumerate(rows):
                if count == MAX_ROWS:
                    problems.append(
                        (f"line {line}", "", f"is beyond the {MAX_ROWS} rows that a profile holds")
                    )
                    break
                problems.extend((f"line {line}", *said) for said in _take(row, times))
                if len(problems) >= MAX_PROBLEMS:
                    break
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        problems.append(("recorded.path", str(path), f"cannot be read: {error}"))
    if not times and not problems:
        problems.append(("recorded.path", str(path), f"holds no rows; each must give {', '.join(COLUMNS)}"))
    return times, problems


def _take(row: Any, times: Times) -> Iterator[tuple[str, str]]:
    """Put one row into `times`, or say what is wrong with it."""
    if not isinstance(row, dict):
        yield repr(row)[:60], f"must be an object with {', '.join(COLUMNS)}"
        return
    missing = [column for column in COLUMNS if row.get(column) in (None, "")]
    if missing:
        yield "", f"lacks {', '.join(missing)}"
        return
    iteration, rank = (_whole(row[column]) for column in COLUMNS[:2])
    seconds = _positive(row["seconds"])
    if iteration is None or iteration >= MAX_ITERATION:
        yield f"iteration {row['iteration']!r}", f"must be a whole number from 0 to {MAX_ITERATION - 1}"
    if rank is None:
        yield f"rank {row['rank']!r}", "must be a whole number from 0"
    if seconds is None:
        yield f"seconds {row['seconds']!r}", "must be a finite number above 0"
    if iteration is None or rank is None or seconds is None or iteration >= MAX_ITERATION:
        return
    steps = times.setdefault(rank, [])
    steps.extend([None] * (iteration + 1 - len(steps)))
    if steps[iteration] is not None:
        yield f"iteration {iteration}, rank {rank}", "is recorded twice"
    steps[iteration] = seconds


def _csv(file: Any) -> Iterator[tuple[int, Any]]:
    reader = csv.DictReader(file, skipinitialspace=True)
    return ((reader.line_num, row) for row in reader)


def _jsonl(file: Any) -> Iterator[tuple[int, Any]]:
    for line, text in enumerate(file, 1):
        if text.strip():
            try:
                yield line, json.loads(text)
            except ValueError:
                yield line, text.strip()


def _whole(value: object) -> int | None:
    try:
        number = int(value) if isinstance(value, str) else value
    except ValueError:
        return None
    return number if isinstance(number, int) and not isinstance(number, bool) and number >= 0 else None


def _positive(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number > 0 else None
