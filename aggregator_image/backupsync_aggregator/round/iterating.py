"""From one iteration to the next: completion, the end of the data, suspension, the start."""

from backupsync.trace import Resized
from backupsync_aggregator.round import evaluating
from backupsync_aggregator.round.effects import Apply, NoticeStale
from backupsync_aggregator.round.ending import end
from backupsync_aggregator.round.lines import iteration_line
from backupsync_aggregator.round.quorum import Watch
from backupsync_aggregator.round.state import State


def is_complete(state: State) -> bool:
    """Whether the running iteration has the gradients it needs."""
    return state.begun and state.verdict is None and len(state.contributions) >= state.quorum.goal


def complete(state: State) -> None:
    """Have the update made, tell those who are late, and go over to the next iteration."""
    contributions = tuple(state.contributions)
    state.emit(Apply(state.iteration, contributions, state.examples))
    state.record(iteration_line(state, contributions))
    if state.spec.aggregation.abandon_late and not state.is_async:
        for seat in state.computing():
            state.emit(NoticeStale(seat.member, state.iteration))
    state.iteration += 1
    state.examples += sum(c.examples for c in contributions)
    state.iteration_began = state.now
    state.contributions.clear()
    state.losses.clear()
    state.accepted_ranks.clear()
    _between(state)


def begin(state: State) -> None:
    """N are live: training begins, with the N and b desired by now.

    They are recorded unless they are the manifest's in the first epoch: an earlier epoch may have had others.
    """
    state.quorum.begin()
    state.iteration_began = state.now
    state.reopen = True
    aggregation = state.spec.aggregation
    in_force = (state.quorum.workers, state.quorum.backups)
    if in_force != (aggregation.workers, aggregation.backup_workers) or state.origin.epoch > 1:
        _record_resized(state)


def watch(state: State) -> None:
    """Look at quorum, deadlines and suspension."""
    if not state.begun:
        if _nothing_left(state) and state.roster.waiting:
            _end_completed(state)
        elif state.desire.suspend:
            end(state, "Suspended", "Suspended", "suspended before training began")
        elif state.roster.live >= state.quorum.needed:
            begin(state)
    if state.verdict is not None:
        return
    state.quorum.relax(len(state.contributions), state.reachable())
    found = state.quorum.watch(state.present(), len(state.contributions), state.now)
    if found is Watch.FAIL:
        _end_below(state)
    elif found is Watch.SHRUNK and not state.begun:
        begin(state)
    if state.verdict is None:
        evaluating.watch(state)


def watch_suspension(state: State) -> None:
    """Suspended: nobody is handed a ticket; the running iteration may complete within the grace period."""
    if not state.desire.suspend or not state.begun or state.verdict is not None:
        return
    if state.suspending_since is None:
        state.suspending_since = state.now
        if state.evaluations.running is not None or state.evaluations.due:
            evaluating.abort(state, "the job is being suspended")
    to_come = {s.member.rank for s in state.computing() if not state.has_contributed(s.member.rank)}
    hopeless = len(state.contributions) + len(to_come) < state.quorum.goal
    over = state.now - state.suspending_since >= state.spec.run_policy.suspend_grace_seconds
    if hopeless or over:
        _end_suspended(state)


def end_of_data(state: State) -> bool:
    """At the end of the data an iteration makes do with fewer than N. Returns whether anything changed.

    Nobody is waited for in vain: once no live member can add to the running iteration it completes with what
    it has, and with nothing at all the job ends.
    """
    if state.tickets.available and not state.exhausted_seen:
        return False
    if not state.begun or state.verdict is not None or state.suspending_since is not None:
        return False
    seats = list(state.roster.live_seats())
    supply = state.tickets.available or any(s.reserved is not None for s in seats)
    for seat in seats:
        if state.has_contributed(seat.member.rank):
            continue
        computes = seat.assignment is not None and (
            state.is_async or seat.assignment.iteration == state.iteration
        )
        if computes or (supply and not seat.exhausted):
            return False
    enough = state.present() >= state.quorum.required
    over = not supply or (all(s.exhausted for s in seats) and (bool(seats) or enough))
    if state.contributions:
        if over or enough:
            state.quorum.curtail(len(state.contributions))
            return True
        return False
    late = state.tickets.requeues and any(s.assignment is not None for s in seats)
    if over and not late:
        _end_data(state)
        return True
    return False


def _between(state: State) -> None:
    if state.reached_end():
        _end_completed(state)
        return
    if state.suspending_since is not None:
        _end_suspended(state)
        return
    if state.quorum.settle(state.roster.live):
        _record_resized(state)
    state.quorum.open()
    evaluating.mark(state)
    state.stirred = state.stirred or state.quorum.stretched(state.roster.live)
    state.reopen = True


def _nothing_left(state: State) -> bool:
    return state.reached_end() or not state.tickets.available


def _end_completed(state: State) -> None:
    training = state.spec.training
    done = f"{state.iteration} iterations, {state.examples} examples"
    if training.epochs is not None:
        done = f"{training.epochs} epochs: {done}"
    end(state, "Succeeded", "Completed", done)


def _end_data(state: State) -> None:
    if state.spec.training.epochs is not None:
        _end_completed(state)
        return
    message = f"the data ended after {state.iteration} iterations, {state.examples} examples"
    end(state, "Succeeded", "EndOfData", message)


def _end_suspended(state: State) -> None:
    end(state, "Suspended", "Suspended", f"suspended at iteration {state.iteration}")


def _end_below(state: State) -> None:
    if not state.begun and _nothing_left(state):
        _end_completed(state)
        return
    policy = state.spec.aggregation.below_quorum
    message = f"{state.roster.live} workers are live, {state.quorum.needed} are needed (belowQuorum.policy "
    if policy.policy == "Fail" and state.begun:
        message += "Fail)"
    else:
        message += f"{policy.policy.value}, deadlineSeconds {policy.deadline_seconds:g})"
    end(state, "Failed", "BelowQuorum", message)


def _record_resized(state: State) -> None:
    state.record(
        Resized(
            at=state.now,
            iteration=state.iteration,
            required=state.quorum.workers,
            backups=state.quorum.backups,
        )
    )
