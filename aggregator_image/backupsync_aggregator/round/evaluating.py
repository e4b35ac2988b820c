"""The round's side of evaluation: when there is slack, who is asked, and what the answers mean."""

from backupsync.trace import Evaluation
from backupsync_aggregator.round import events
from backupsync_aggregator.round.effects import AbortEvaluation, Evaluate
from backupsync_aggregator.round.members import Seat
from backupsync_aggregator.round.state import State


def has_slack(state: State) -> bool:
    """Whether N gradients can be had without the evaluating member."""
    return state.roster.live - 1 >= state.quorum.required


def mark(state: State) -> None:
    """Between iterations: note that an evaluation is due, and whether everyone must pause for it."""
    evaluations = state.evaluations
    if not evaluations.falls_on(state.iteration) or evaluations.running is not None:
        return
    never_slack = state.roster.live < 2 if state.is_async else state.quorum.backups == 0
    evaluations.ask(state.iteration, state.now, pausing=never_slack and not has_slack(state))


def may_begin(state: State) -> bool:
    """Whether an evaluation is due and somebody can be spared for it."""
    evaluations = state.evaluations
    if not evaluations.due or not state.roster.waiting:
        return False
    return state.verdict is not None or (
        state.suspending_since is None and (evaluations.pausing or has_slack(state))
    )


def begin(state: State) -> None:
    """Ask the worker whose turn it is, as soon as it waits; from the next iteration on, whoever waits.

    Where everyone waits for the evaluation there are no turns.
    """
    evaluations = state.evaluations
    hurry = state.verdict is not None or evaluations.pausing or state.iteration > evaluations.asked_in
    seat = evaluations.choose(state.roster.waiting.values(), state.roster.live_seats(), hurry=hurry)
    if seat is None:
        return
    state.roster.waiting.pop(seat.member)
    evaluations.start(seat, state.iteration, state.now)
    state.emit(Evaluate(seat.member, state.iteration))


def evaluated(state: State, event: events.Evaluated) -> None:
    """An answer came. No metrics and no error means that there is nothing to evaluate, now or ever."""
    evaluations = state.evaluations
    if not evaluations.is_from(event.member, event.iteration):
        return
    if event.metrics or event.error is not None:
        _record(state, event.member.rank, event.metrics, event.seconds, event.error)
    else:
        evaluations.useless = True
    evaluations.close()
    state.reopen = True


def evaluator_left(state: State, seat: Seat, detail: str) -> None:
    """If the member was evaluating, another is asked, a few times."""
    evaluations = state.evaluations
    if evaluations.running is not seat:
        return
    _record(state, seat.member.rank, {}, 0.0, f"the worker left: {detail}")
    evaluations.close(again=True)
    state.reopen = True


def abort(state: State, why: str) -> None:
    """Give up what is due or running."""
    seat = state.evaluations.running
    if seat is not None:
        state.emit(AbortEvaluation(seat.member, state.evaluations.iteration))
        _record(state, seat.member.rank, {}, 0.0, f"aborted: {why}")
    state.evaluations.close()
    state.reopen = True


def watch(state: State) -> None:
    """Give up an evaluation that takes too long, or whose worker is needed to reach N."""
    evaluations = state.evaluations
    if evaluations.overdue(state.now):
        abort(state, "the deadline passed")
    elif state.verdict is not None or evaluations.pausing or evaluations.running is None:
        return
    elif not has_slack(state):
        abort(state, "the worker is needed to reach N")


def _record(state: State, rank: int, metrics: dict[str, float], seconds: float, error: str | None) -> None:
    state.record(
        Evaluation(
            at=state.now,
            iteration=state.evaluations.iteration,
            rank=rank,
            metrics=metrics,
            averaged=state.spec.training.ema_decay is not None,
            seconds=seconds,
            error=error,
        )
    )
