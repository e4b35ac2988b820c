"""The lifecycle: which replicas to start, stop and replace, and the job's conditions. Pure.

One planner, two engines: `plan` is called by the local engine (processes) and by the operator (pods).
"""

from backupsync.lifecycle.members import with_candidate, with_restart
from backupsync.lifecycle.plan import at_rest, bare, plan, worth_writing

__all__ = ["at_rest", "bare", "plan", "with_candidate", "with_restart", "worth_writing"]
