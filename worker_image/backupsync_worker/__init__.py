"""The worker: computes tagged gradients of one rank and pushes them to the aggregator."""

from backupsync.errors import ProgramError
from backupsync_worker.program import Program

__all__ = ["Program", "ProgramError"]
