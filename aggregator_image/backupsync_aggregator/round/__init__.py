"""The round: which gradient is accepted, when an iteration is complete, who is told what. Pure."""

from backupsync_aggregator.round.events import Member
from backupsync_aggregator.round.machine import Round
from backupsync_aggregator.round.members import MemberView, Outstanding
from backupsync_aggregator.round.replaying import ReplayRound
from backupsync_aggregator.round.state import Origin

AnyRound = Round | ReplayRound
"""What the hands can be told by."""

__all__ = ["AnyRound", "Member", "MemberView", "Origin", "Outstanding", "ReplayRound", "Round"]
