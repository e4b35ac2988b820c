"""How a job ends: decided once, then perhaps a final evaluation, then everybody is told."""

from typing import Literal

from backupsync.trace import Ended
from backupsync.wire.messages import Outcome, Reason
from backupsync_aggregator.round import evaluating
from backupsync_aggregator.round.effects import Finish, Tell
from backupsync_aggregator.round.lines import gradient_line
from backupsync_aggregator.round.members import Assignment, Seat
from backupsync_aggregator.round.state import State, Verdict


def end(
    state: State, outcome: Literal["Succeeded", "Failed", "Suspended"], reason: str, message: str
) -> None:
    """Training is over. After success the final parameters are evaluated once before the round finishes."""
    if state.verdict is not None:
        return
    state.verdict = Verdict(outcome, reason, message)
    if state.evaluations.running is not None:
        evaluating.abort(state, "training has ended")
    if outcome != "Succeeded" or state.evaluations.useless:
        finish(state)
        return
    state.evaluations.ask(state.iteration, state.now, pausing=False)


def conclude(state: State) -> None:
    """See the final evaluation through; it never keeps the job from finishing."""
    if state.finish is not None:
        return
    evaluating.watch(state)
    if evaluating.may_begin(state):
        evaluating.begin(state)
    evaluations = state.evaluations
    if evaluations.running is None and (not evaluations.due or not state.roster.live):
        finish(state)


def stop(state: State) -> None:
    """Asked to stop, to go on later; what has been achieved already stands."""
    end(state, "Suspended", "Stopped", f"stopped at iteration {state.iteration}")
    finish(state)


def finish(state: State) -> None:
    """Tell everyone who still computes, record the end, and have everyone sent home."""
    verdict = state.verdict
    if state.finish is not None or verdict is None:
        return
    for seat in state.roster.live_seats():
        if seat.assignment is not None:
            _tell_ended(state, seat, seat.assignment)
    state.record(
        Ended(
            at=state.now,
            iteration=state.iteration,
            outcome=verdict.outcome,
            reason=verdict.reason,
            message=verdict.message,
        )
    )
    state.finish = Finish(verdict.outcome, verdict.reason, verdict.message)
    state.emit(state.finish)


def _tell_ended(state: State, seat: Seat, assignment: Assignment) -> None:
    """The gradient will not be waited for; a successor of a suspended job hands its ticket out again."""
    seat.assignment = None
    seat.dropped += 1
    seat.last_outcome = Outcome.DROPPED.value
    state.tickets.give_back(assignment.ticket)
    iteration, ticket = assignment[:2]
    state.emit(Tell(seat.member, iteration, ticket, Outcome.DROPPED, reason=Reason.ENDED))
    state.record(gradient_line(state, seat, assignment, Outcome.DROPPED, reason=Reason.ENDED))
