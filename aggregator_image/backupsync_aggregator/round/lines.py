"""Lines of the trace, as far as the round knows their content."""

import math

from backupsync.trace import Gradient, Iteration
from backupsync.wire.messages import Commit, Outcome, Reason, Timing
from backupsync_aggregator.round.effects import Contribution
from backupsync_aggregator.round.members import Assignment, Seat
from backupsync_aggregator.round.state import State


def gradient_line(
    state: State,
    seat: Seat,
    assignment: Assignment,
    outcome: Outcome,
    *,
    place: int | None = None,
    reason: Reason | None = None,
    commit: Commit | None = None,
    timing: Timing | None = None,
) -> Gradient:
    """What became of the gradient of an assignment; without `commit` it never became whole."""
    rank, attempt = seat.member
    timing = commit.timing if commit is not None else timing
    return Gradient(
        at=state.now,
        iteration=assignment.iteration,
        rank=rank,
        attempt=attempt,
        ticket=assignment.ticket,
        outcome=outcome.value,
        place=place,
        reason=None if reason is None else reason.value,
        applied_at=state.iteration if outcome is Outcome.ACCEPTED else None,
        examples=0 if commit is None else commit.examples,
        scale=1.0 if commit is None or not math.isfinite(commit.scale) else commit.scale,
        loss=None if commit is None or not math.isfinite(commit.loss) else commit.loss,
        arrival_seconds=state.now - assignment.began,
        busy_seconds=state.now - assignment.since,
        compute_seconds=None if timing is None else timing.compute,
        data_seconds=None if timing is None else timing.data,
        push_seconds=None if timing is None else timing.push,
        injected_seconds=None if timing is None or not timing.injected else timing.injected,
        to_the_end=assignment.to_the_end,
    )


def unasked_line(state: State, seat: Seat, commit: Commit) -> Gradient:
    """A gradient that nobody asked for, or of a member that is no more."""
    rank, attempt = seat.member
    return Gradient(
        at=state.now,
        iteration=commit.iteration,
        rank=rank,
        attempt=attempt,
        ticket=commit.ticket,
        outcome=Outcome.REFUSED.value,
        reason=Reason.UNASKED.value,
    )


def iteration_line(state: State, contributions: tuple[Contribution, ...]) -> Iteration:
    """The update just made, before the state moves on."""
    accepted = len(contributions)
    required = state.quorum.nominal
    weight = sum(examples for _, examples in state.losses)
    return Iteration(
        at=state.now,
        iteration=state.iteration,
        required=required,
        accepted=accepted,
        live=state.roster.live,
        seconds=state.now - state.iteration_began,
        examples=state.examples + sum(c.examples for c in contributions),
        loss=sum(loss * examples for loss, examples in state.losses) / weight if weight else None,
        note=state.quorum.note if accepted < required else None,
    )
