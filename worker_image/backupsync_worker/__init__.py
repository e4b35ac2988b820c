"""The worker: computes tagged gradients of one rank and pushes them to the aggregator.

What a program calls is imported when it is first used: so `python -m backupsync_worker` answers SIGTERM, and
says what is wrong with its environment, before torch is loaded.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from backupsync.errors import ProgramError

if TYPE_CHECKING:
    from backupsync_worker.program import Program
    from backupsync_worker.session import Iteration, Session, join

__all__ = ["Iteration", "Program", "ProgramError", "Session", "join"]

_FOUND_IN: Final = {"Program": "program", "Iteration": "session", "Session": "session", "join": "session"}


def __getattr__(name: str) -> Any:
    if name not in _FOUND_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_FOUND_IN[name]}"), name)
    globals()[name] = value
    return value
