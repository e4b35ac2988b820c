"""Last words: what the log of a process that ended says about why."""

import json
import re

from backupsync.lifecycle.types import Replica

LINES = 60
"""Lines at the end of a log that are searched."""
_TRACEBACK = "Traceback (most recent call last):"
_CHAINED = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
_ERROR = re.compile(r"^[\d:.]+ (?:ERROR|CRITICAL) (?:worker|aggregator|log)[^:]*: ", re.MULTILINE)
_KEPT_BY_PLANNER = 2000
_OTHERWISE = 5


def last_words(text: str) -> str:
    """Return what says most about an end: the last traceback, else the last error, else a few last lines."""
    text = _plain(text).rstrip()
    at = text.rfind(_TRACEBACK)
    errors = list(_ERROR.finditer(text))
    if at >= 0:
        return text[_first_of_chain(text, at) :]
    if errors:
        return text[errors[-1].end() :]
    return "\n".join(text.splitlines()[-_OTHERWISE:])


class Sayings:
    """What exited processes said: an event's detail says it whole, everything else in short."""

    def __init__(self) -> None:
        self._said: list[str] = []

    def add(self, replica: Replica) -> None:
        """Remember the last words of an exited replica."""
        words = replica.message.strip()
        if "\n" in words and words not in self._said:
            self._said.append(words)

    def shorten(self, message: str) -> str:
        """Return `message` with last words of many lines replaced by the last of them."""
        for words in self._said:
            for said in (words, words[-_KEPT_BY_PLANNER:]):
                message = message.replace(said, words.splitlines()[-1])
        return message


def _first_of_chain(text: str, at: int) -> int:
    """Go back to the traceback that the one at `at` followed from."""
    while text[:at].rstrip().endswith(_CHAINED):
        earlier = text.rfind(_TRACEBACK, 0, at)
        if earlier < 0:
            break
        at = earlier
    return at


def _plain(text: str) -> str:
    """Turn the lines of a JSON log back into text."""
    lines = []
    for line in text.splitlines():
        record = _record(line)
        if record is None:
            lines.append(line)
            continue
        lines.append(f"00:00:00.000 {str(record.get('level')).upper()} log: {record['message']}")
        if record.get("traceback"):
            lines.append(str(record["traceback"]))
    return "\n".join(lines)


def _record(line: str) -> dict[str, object] | None:
    if not line.startswith("{"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "message" in record else None
