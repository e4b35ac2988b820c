"""Waiting on predicates: until something holds, with a predicate of failure, and the last state on failure.

Nothing here is a measurement: timeouts only bound how long a broken run may take to say so.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from support.api import Unavailable

T = TypeVar("T")

PATIENCE = 120.0
"""Seconds after which what has not happened is taken never to happen."""
_POLL = 0.2


class WaitError(AssertionError):
    """What was waited for did not happen; the message holds the last state."""


def wait(
    predicate: Callable[[], T | None],
    *,
    failure: Callable[[], object] | None = None,
    timeout: float = PATIENCE,
    explain: Callable[[], str] = str,
) -> T:
    """Return the first true value of `predicate`.

    Raises WaitError as soon as `failure` returns something true (its value is the reason), or after `timeout`
    seconds; `explain` gives the state that the message shows. An API server that is away is asked again.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = _ask(predicate)
        if value:
            return value
        reason = _ask(failure) if failure is not None else None
        if reason:
            raise WaitError(f"failed while waiting: {reason}\n{_explained(explain)}")
        if time.monotonic() > deadline:
            raise WaitError(f"did not happen within {timeout:g} s\n{_explained(explain)}")
        time.sleep(_POLL)


def _ask(predicate: Callable[[], T | None]) -> T | None:
    try:
        return predicate()
    except Unavailable:
        return None


def _explained(explain: Callable[[], str]) -> str:
    try:
        return explain()
    except Exception as error:  # the first failure is the one to show
        return f"(no state: {error})"
