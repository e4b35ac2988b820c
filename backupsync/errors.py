"""Errors that are the user's to read: no traceback, a message that names field, value and remedy."""


class BackupSyncError(Exception):
    """A condition the user can act on."""


class ProgramError(BackupSyncError):
    """The user's program cannot be used as it is."""


class Refused(BackupSyncError):  # noqa: N818 -- the protocol's own word
    """The aggregator refused this worker; `code` is the wire's refusal code."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(f"the aggregator refused this worker: {code}: {detail}")


class CheckpointError(BackupSyncError):
    """A checkpoint that cannot be written, read or used by this job."""


class Fenced(BackupSyncError):  # noqa: N818 -- a state, not a fault
    """A newer aggregator has taken over this job's checkpoint directory."""
