"""Tracebacks as their reader needs them: from the user's own code on, without the frames of this package."""

from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

E = TypeVar("E", bound=BaseException)

_OURS: Final = str(Path(__file__).parent)
_RUNPY: Final = "<frozen runpy>"


def trimmed(error: E) -> E:
    """Return `error` with its traceback beginning at the first frame that is not this package's.

    A fault of our own, whose frames are all ours, keeps its whole traceback. Changes `error` in place.
    """
    outer = error.__traceback__
    while outer is not None and _is_ours(outer):
        outer = outer.tb_next
    return error if outer is None else error.with_traceback(outer)


def _is_ours(frame: TracebackType) -> bool:
    name = frame.tb_frame.f_code.co_filename
    return name == _RUNPY or name.startswith(_OURS)
