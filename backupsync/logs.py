"""Logs of every process of ours: one line to stderr per event, as text for people or JSON for machines.

A traceback is the one thing longer than a line in text; in JSON it is a field.
"""

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

LogFormat = Literal["text", "json"]


class _TextFormatter(logging.Formatter):
    """`07:15:02.113 INFO worker 3.0 of digits: message`; warnings and worse say so in capitals as usual."""

    def __init__(self, who: str) -> None:
        super().__init__(f"%(asctime)s.%(msecs)03d %(levelname)s {who}: %(message)s", "%H:%M:%S")


class _JsonFormatter(logging.Formatter):
    """One JSON object per line; `fields` (job, rank, attempt, ...) are in every one."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        super().__init__()
        self._fields = dict(fields)

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self._fields,
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class _StderrHandler(logging.StreamHandler[Any]):
    """Writes to whatever `sys.stderr` is at the moment: a forked process may have redirected it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        """The present stderr."""
        return sys.stderr

    @stream.setter
    def stream(self, _: Any) -> None:
        return


def formatter(log_format: str, role: str, fields: Mapping[str, Any]) -> logging.Formatter:
    """Return the formatter of `role` ("worker", "aggregator", ...) with `fields` such as job and rank."""
    if log_format == "json":
        return _JsonFormatter({"role": role, **fields})
    who = role
    if "rank" in fields:
        who += f" {fields['rank']}"
        if fields.get("attempt"):
            who += f" (attempt {fields['attempt']})"
    return _TextFormatter(f"{who} of {fields['job']}" if "job" in fields else who)


def configure(log_format: str, role: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Send this process's logs to stderr in `log_format`, "text" or "json". Replaces earlier handlers."""
    handler = _StderrHandler()
    handler.setFormatter(formatter(log_format, role, fields))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(True)
