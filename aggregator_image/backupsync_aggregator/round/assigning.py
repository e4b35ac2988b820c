"""Who gets a ticket, when; and what becomes of a ticket whose holder is gone."""

from backupsync.wire.messages import Outcome, Reason
from backupsync_aggregator.round import evaluating
from backupsync_aggregator.round.effects import Assign, Tell
from backupsync_aggregator.round.lines import gradient_line
from backupsync_aggregator.round.members import Assignment, Seat
from backupsync_aggregator.round.state import State
from backupsync_aggregator.round.tickets import runs_to_the_end


def ready(state: State, seat: Seat, holds: int) -> None:
    """A member can compute. Idempotent: one that has an assignment, or evaluates, goes on with it."""
    if seat.assignment is not None or seat.evaluating:
        return
    seat.holds = holds
    state.roster.waiting[seat.member] = seat
    if evaluating.may_begin(state):
        evaluating.begin(state)
    offer(state, seat)


def hand_out(state: State) -> None:
    """Look again at everyone who waits."""
    state.reopen = False
    if evaluating.may_begin(state):
        evaluating.begin(state)
    for seat in list(state.roster.waiting.values()):
        offer(state, seat)


def offer(state: State, seat: Seat) -> None:
    """Hand the member a ticket of the running iteration, if it may compute and there is one."""
    if not may_compute(state, seat):
        return
    ticket = _take(state, seat)
    if ticket is None:
        return
    state.roster.waiting.pop(seat.member, None)
    seat.reserved = state.tickets.reserve()
    to_the_end = runs_to_the_end(state.spec.training.seed, ticket)
    seat.assignment = Assignment(state.iteration, ticket, state.now, state.iteration_began, to_the_end)
    send = seat.holds != state.iteration
    seat.holds = state.iteration
    state.emit(Assign(seat.member, state.iteration, ticket, seat.reserved, to_the_end, send))


def may_compute(state: State, seat: Seat) -> bool:
    """Whether the member may be handed a ticket of the running iteration."""
    return (
        state.begun
        and state.verdict is None
        and state.suspending_since is None
        and not state.evaluations.pausing
        and seat.live
        and seat.assignment is None
        and not seat.evaluating
        and not seat.exhausted
        and not state.has_contributed(seat.member.rank)
    )


def void(state: State, seat: Seat, *, tell: bool) -> None:
    """What the member holds is no longer its own: it left, or was sent away. Its tickets come back."""
    release_reserved(state, seat)
    assignment = seat.assignment
    if assignment is None:
        return
    seat.assignment = None
    seat.dropped += 1
    seat.last_outcome = Outcome.DROPPED.value
    state.tickets.unfinished(assignment.ticket)
    state.reopen = True
    if tell:
        state.emit(
            Tell(
                seat.member,
                assignment.iteration,
                assignment.ticket,
                Outcome.DROPPED,
                reason=Reason.NOT_LIVE,
            )
        )
    state.record(gradient_line(state, seat, assignment, Outcome.DROPPED, reason=Reason.NOT_LIVE))


def release_reserved(state: State, seat: Seat) -> None:
    """The member will not compute what was reserved for it."""
    if seat.reserved is not None:
        state.tickets.give_back(seat.reserved)
        seat.reserved = None
        state.reopen = True


def _take(state: State, seat: Seat) -> int | None:
    """The member's reserved ticket, or a new one; at the end of the data also one reserved for another."""
    if seat.reserved is not None:
        ticket, seat.reserved = seat.reserved, None
        return ticket
    found = state.tickets.take()
    if found is not None:
        return found
    for other in state.roster.seats.values():
        if other.reserved is not None:
            state.tickets.give_back(other.reserved)
            other.reserved = None
    return state.tickets.take()
