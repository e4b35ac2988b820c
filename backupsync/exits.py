"""Exit codes of worker and aggregator: how the engine tells a crash to retry from one that never heals.

Codes follow sysexits.h where it has one. A process ended by signal S is seen as 128 + S,
as a kubelet sees it.
"""

from enum import IntEnum, StrEnum


class Exit(IntEnum):
    """What a process of ours says when it ends."""

    SUCCESS = 0
    CRASHED = 1
    """The user's program raised, or a fault of ours."""
    BAD_INPUT = 65
    """EX_DATAERR: the program or its model cannot be used as it is; trying again cannot help."""
    UNAVAILABLE = 69
    """EX_UNAVAILABLE: the aggregator stayed out of reach."""
    CANNOT_WRITE = 73
    """EX_CANTCREAT: the checkpoint directory cannot be written."""
    RESTART = 75
    """EX_TEMPFAIL: asked to start again in place."""
    FENCED = 76
    """A newer attempt or epoch has taken this one's place."""
    CONFIGURATION = 78
    """EX_CONFIG: the environment of the process is not as it must be (wrong key, port taken)."""
    OUT_OF_MEMORY = 137
    """128 + SIGKILL, what the kernel's out-of-memory killer leaves; MemoryError exits with it too."""


class ExitKind(StrEnum):
    """How the engine answers an exit."""

    SUCCEEDED = "Succeeded"
    RETRYABLE = "Retryable"
    PERMANENT = "Permanent"
    OUT_OF_MEMORY = "OutOfMemory"
    ASKED = "Asked"
    """Restart or fence that the system itself asked for: counts against no budget."""
    DISRUPTED = "Disrupted"
    """Ended from outside (evicted, preempted, its node shut down), whatever its code: not its fault."""


_PERMANENT = frozenset({Exit.BAD_INPUT, Exit.CANNOT_WRITE, Exit.CONFIGURATION})
_ASKED = frozenset({Exit.RESTART, Exit.FENCED})


def kind_of(code: int) -> ExitKind:
    """Classify an exit code (negative: minus the signal, as Python's subprocess reports it)."""
    if code < 0:
        code = 128 - code
    if code == Exit.SUCCESS:
        return ExitKind.SUCCEEDED
    if code in _PERMANENT:
        return ExitKind.PERMANENT
    if code in _ASKED:
        return ExitKind.ASKED
    if code == Exit.OUT_OF_MEMORY:
        return ExitKind.OUT_OF_MEMORY
    return ExitKind.RETRYABLE
