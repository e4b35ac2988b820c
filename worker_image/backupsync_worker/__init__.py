"""The worker: computes tagged gradients of one rank and pushes them to the aggregator."""

from backupsync.errors import ProgramError
from backupsync_worker.program import Program
from backupsync_worker.session import Iteration, Session, join

__all__ = ["Iteration", "Program", "ProgramError", "Session", "join"]
