"""Structured logs: one line per event, for a person (text) or a collector (JSON)."""

import json
import logging
import sys
from typing import Final

LOGGER: Final = logging.getLogger("backupsync.aggregator")


class _JsonFormatter(logging.Formatter):
    def __init__(self, job: str) -> None:
        super().__init__()
        self._job = job

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one JSON object."""
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "role": "aggregator",
            "job": self._job,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure(log_format: str, job: str) -> None:
    """Send this role's log to stderr as `text` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s aggregator %(levelname)s %(message)s", "%H:%M:%S")
    handler.setFormatter(_JsonFormatter(job) if log_format == "json" else text)
    LOGGER.handlers[:] = [handler]
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
