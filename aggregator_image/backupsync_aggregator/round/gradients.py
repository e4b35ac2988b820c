"""The verdict on one gradient: accepted, dropped or refused, and whom that concerns."""

import math

from backupsync.wire.messages import Commit, Outcome, Reason
from backupsync_aggregator.round import events
from backupsync_aggregator.round.assigning import offer, release_reserved
from backupsync_aggregator.round.effects import Contribution, Tell
from backupsync_aggregator.round.ending import end
from backupsync_aggregator.round.lines import gradient_line, unasked_line
from backupsync_aggregator.round.members import Assignment, Seat
from backupsync_aggregator.round.membership import promote
from backupsync_aggregator.round.state import State


def committed(state: State, event: events.Committed) -> None:
    """A gradient arrived."""
    seat = state.roster.seats.get(event.member)
    if seat is None:
        return
    assignment = _answered(state, seat, event.commit)
    if assignment is None:
        _refuse_unasked(state, seat, event.commit)
        return
    seat.assignment = None
    seat.commits += 1
    if state.verdict is not None:
        _drop(state, seat, assignment, event.commit, Reason.ENDED)
        return
    reason = _too_old(state, assignment)
    if reason is not None:
        _drop(state, seat, assignment, event.commit, reason)
        return
    fault = _fault(event)
    if fault is not None:
        _refuse(state, seat, assignment, event.commit, fault)
        return
    if seat.candidate:
        promote(state, seat)
    if state.has_contributed(seat.member.rank):
        _drop(state, seat, assignment, event.commit, Reason.DUPLICATE_RANK)
        return
    _accept(state, seat, assignment, event.commit)


def abandoned(state: State, event: events.Abandoned) -> None:
    """A member gave up a stale batch; it needs no telling."""
    seat = state.roster.get(event.member)
    assignment = None if seat is None else seat.assignment
    if seat is None or assignment is None or assignment[:2] != (event.iteration, event.ticket):
        return
    seat.assignment = None
    _count_dropped(state, seat, assignment)
    line = gradient_line(
        state, seat, assignment, Outcome.DROPPED, reason=Reason.ABANDONED, timing=event.timing
    )
    state.record(line)


def exhausted(state: State, event: events.Exhausted) -> None:
    """A member's data is at its end; another's may not be, so its tickets go back."""
    seat = state.roster.get(event.member)
    assignment = None if seat is None else seat.assignment
    if seat is None or assignment is None or assignment[:2] != (event.iteration, event.ticket):
        return
    seat.assignment = None
    seat.exhausted = True
    state.exhausted_seen = True
    state.tickets.give_back(assignment.ticket)
    release_reserved(state, seat)
    state.reopen = True
    state.roster.waiting[seat.member] = seat  # it has nothing to compute, but it can evaluate
    state.note_member(seat, "exhausted", f"no batch for ticket {assignment.ticket}, nor for any later one")


def _answered(state: State, seat: Seat, commit: Commit) -> Assignment | None:
    """The assignment that the COMMIT answers, if it was handed to this member by this aggregator."""
    assignment = seat.assignment
    if (
        assignment is None
        or not seat.live
        or commit.epoch != state.origin.epoch
        or commit.attempt != seat.member.attempt
        or assignment[:2] != (commit.iteration, commit.ticket)
    ):
        return None
    return assignment


def _too_old(state: State, assignment: Assignment) -> Reason | None:
    """Why its iteration rules it out: any but the current one; in Async only one beyond the limit."""
    staleness = state.iteration - assignment.iteration
    if not state.is_async:
        return Reason.LATE if staleness else None
    limit = state.spec.aggregation.max_staleness
    return Reason.STALE if limit is not None and staleness > limit else None


def _fault(event: events.Committed) -> Reason | None:
    """What is wrong with the gradient itself."""
    commit = event.commit
    if commit.examples < 1 or not 0.0 <= commit.scale <= 1.0:  # NaN fails the comparison too
        return Reason.MALFORMED
    if not event.whole:
        return Reason.INCOMPLETE
    return None if event.finite and commit.finite else Reason.NOT_FINITE


def _accept(state: State, seat: Seat, assignment: Assignment, commit: Commit) -> None:
    place = len(state.contributions)
    state.contributions.append(
        Contribution(
            seat.member, assignment.ticket, place, commit.examples, commit.scale, assignment.iteration
        )
    )
    state.accepted_ranks[seat.member.rank] = seat.member
    if math.isfinite(commit.loss):
        state.losses.append((commit.loss, commit.examples))
    state.non_finite_row = 0
    state.tickets.done(assignment.ticket)
    seat.accepted += 1
    seat.last_outcome = Outcome.ACCEPTED.value
    state.emit(Tell(seat.member, assignment.iteration, assignment.ticket, Outcome.ACCEPTED, place=place))
    state.record(gradient_line(state, seat, assignment, Outcome.ACCEPTED, place=place, commit=commit))


def _drop(state: State, seat: Seat, assignment: Assignment, commit: Commit, reason: Reason) -> None:
    _count_dropped(state, seat, assignment)
    state.emit(Tell(seat.member, assignment.iteration, assignment.ticket, Outcome.DROPPED, reason=reason))
    state.record(gradient_line(state, seat, assignment, Outcome.DROPPED, reason=reason, commit=commit))


def _count_dropped(state: State, seat: Seat, assignment: Assignment) -> None:
    seat.dropped += 1
    seat.last_outcome = Outcome.DROPPED.value
    state.tickets.dropped(assignment.ticket)
    state.reopen = state.reopen or state.tickets.scarce


def _refuse(state: State, seat: Seat, assignment: Assignment, commit: Commit, reason: Reason) -> None:
    """Refused, and a fresh ticket for the same iteration at once: N live workers always make progress."""
    seat.refused += 1
    seat.last_outcome = Outcome.REFUSED.value
    if reason is Reason.INCOMPLETE:
        state.tickets.dropped(assignment.ticket)
    else:
        state.tickets.done(assignment.ticket)  # the mini-batch itself may be to blame
    state.emit(Tell(seat.member, assignment.iteration, assignment.ticket, Outcome.REFUSED, reason=reason))
    state.record(gradient_line(state, seat, assignment, Outcome.REFUSED, reason=reason, commit=commit))
    if reason is Reason.NOT_FINITE:
        state.non_finite_row += 1
        if state.non_finite_row >= state.spec.aggregation.non_finite_limit:
            end(state, "Failed", "Diverged", _diverged(state))
            return
    state.roster.waiting[seat.member] = seat
    offer(state, seat)


def _diverged(state: State) -> str:
    limit = state.spec.aggregation.non_finite_limit
    return (
        f"{limit} gradients in a row held NaN or infinity, at iteration {state.iteration}: lower the "
        "learning rate, set training.clipNorm, or look for divisions by zero in the loss"
    )


def _refuse_unasked(state: State, seat: Seat, commit: Commit) -> None:
    """No such ticket was handed to this member, or it was answered before."""
    seat.refused += 1
    state.emit(Tell(seat.member, commit.iteration, commit.ticket, Outcome.REFUSED, reason=Reason.UNASKED))
    state.record(unasked_line(state, seat, commit))
