"""Members come, go, are desired no more, and succeed one another."""

from typing import Literal

from backupsync_aggregator.round import evaluating, events
from backupsync_aggregator.round.assigning import void
from backupsync_aggregator.round.effects import Dismiss
from backupsync_aggregator.round.ending import stop
from backupsync_aggregator.round.members import Seat
from backupsync_aggregator.round.state import State


def joined(state: State, event: events.Joined) -> None:
    """A member is there (again). What was handed over its former connection is void."""
    if not state.roster.admits(event.member):
        state.emit(Dismiss(event.member, "fenced", "a newer attempt of this rank has taken its place"))
        return
    before = state.roster.get(event.member)
    if before is not None:
        _vacate(state, before, "joined again", tell=False)
    seat = state.roster.join(event.member, event.start)
    state.note_member(seat, "joined")
    state.stirred = True
    _restart_if_asked(state, seat)


def left(state: State, event: events.Left) -> None:
    """A member's connection is gone."""
    seat = state.roster.get(event.member)
    if seat is None:
        return
    _vacate(state, seat, event.detail, tell=False)
    state.note_member(seat, "lost", event.detail)


def desired(state: State, event: events.Desire) -> None:
    """A new desired state: its members at once, N and b between iterations."""
    state.desire = event
    state.stirred = True
    if event.stop:
        stop(state)
        return
    state.quorum.aim(event.workers, event.backup_workers)
    state.roster.forget_gone()
    state.roster.desire(event.members)
    for seat in list(state.roster.seats.values()):
        if not state.roster.admits(seat.member):
            _release(state, seat)
        else:
            _restart_if_asked(state, seat)
    if not event.suspend and state.suspending_since is not None:
        state.suspending_since = None
        state.reopen = True


def promote(state: State, seat: Seat) -> None:
    """A candidate made its first whole gradient: it takes the rank over, and its predecessor is fenced."""
    seat.candidate = False
    state.roster.raise_floor(seat.member)
    state.note_member(seat, "promoted")
    for predecessor in state.roster.predecessors(seat.member):
        _dismiss(state, predecessor, "fenced", f"attempt {seat.member.attempt} has taken its place")


def _release(state: State, seat: Seat) -> None:
    """Send home a member that is desired no more."""
    newer = state.roster.is_fenced(seat.member)
    if newer:
        _dismiss(state, seat, "fenced", "a newer attempt of this rank has taken its place")
    else:
        _dismiss(state, seat, "scaled", "the job no longer asks for it")


def _dismiss(state: State, seat: Seat, why: Literal["fenced", "scaled"], detail: str) -> None:
    if seat.live:
        _vacate(state, seat, detail, tell=True)
        state.emit(Dismiss(seat.member, why, detail))
    if not seat.fenced:
        seat.fenced = True
        state.note_member(seat, "fenced" if why == "fenced" else "released", detail)


def _restart_if_asked(state: State, seat: Seat) -> None:
    """Ask a member to restart in place: once per start, again only if it comes back with the same one."""
    if seat.member not in state.desire.restart:
        seat.restart_of = None
        return
    if seat.restart_of is None:
        seat.restart_of = seat.start
    if seat.live and seat.start == seat.restart_of:
        _vacate(state, seat, "asked to restart", tell=True)
        state.emit(Dismiss(seat.member, "restart", "asked to restart in place"))
        state.note_member(seat, "restart")


def _vacate(state: State, seat: Seat, detail: str, *, tell: bool) -> None:
    """The member is live no more; its tickets come back, and what it evaluated is left to another."""
    state.roster.leave(seat)
    void(state, seat, tell=tell)
    evaluating.evaluator_left(state, seat, detail)
    state.stirred = True
