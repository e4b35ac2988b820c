"""The round machine: events in, effects out, time as an argument.

Chen et al., "Revisiting Distributed Synchronous SGD", algorithm 4: wait for gradients, add those of the
current iteration, drop the others, and update once N are there. What the algorithm leaves open is decided
here too: who may speak, what follows a refusal, what becomes of a dropped mini-batch, of N when workers are
lost, and of the last iterations when the data ends.

An event changes the state in one handler; what follows from the new state is then found in one place,
`_settle`. The cost of an event does not grow with the number of members, but between iterations.
"""

from collections.abc import Callable, Mapping
from typing import Any

from backupsync.control import Phase
from backupsync.spec import JobSpec
from backupsync_aggregator.round import (
    assigning,
    ending,
    evaluating,
    events,
    gradients,
    iterating,
    membership,
)
from backupsync_aggregator.round.effects import Dismiss, Effect
from backupsync_aggregator.round.members import MemberView
from backupsync_aggregator.round.state import Origin, State
from backupsync_aggregator.round.totals import examples_total, iterations_total

_DISMISSAL = {"Succeeded": "succeeded", "Failed": "failed", "Suspended": "suspended"}


class Round:
    """Decides what becomes of every gradient of a job, from its start (or checkpoint) to its end."""

    def __init__(self, spec: JobSpec, origin: Origin, desire: events.Desire, now: float) -> None:
        self._state = State(spec, origin, desire, now)
        self._state.roster.desire(desire.members)

    def on(self, event: events.Event, now: float) -> list[Effect]:
        """Take note of an event at `now`, in seconds since the job began; return what to do, in order."""
        state = self._state
        if state.finish is not None:
            return self._turn_away(event)
        state.now = now
        state.effects = []
        _HANDLERS[type(event)](state, event)
        _settle(state)
        return state.effects

    def _turn_away(self, event: events.Event) -> list[Effect]:
        finish = self._state.finish
        if finish is None or not isinstance(event, events.Joined):
            return []
        why: Any = _DISMISSAL[finish.outcome]
        return [Dismiss(event.member, why, finish.message)]

    @property
    def iteration(self) -> int:
        """Updates applied so far."""
        return self._state.iteration

    @property
    def examples(self) -> int:
        """Examples applied so far."""
        return self._state.examples

    @property
    def iteration_began(self) -> float:
        """When the running iteration began."""
        return self._state.iteration_began

    @property
    def required(self) -> int:
        """Gradients of an update as things are: N in force, fewer while shrunk, 1 in Async."""
        return self._state.quorum.required

    @property
    def backups(self) -> int:
        """Backup workers in force."""
        return self._state.quorum.backups

    @property
    def live(self) -> int:
        """Ranks with a live member."""
        return self._state.roster.live

    @property
    def members(self) -> Mapping[events.Member, MemberView]:
        """Every member that has joined, as it is now."""
        return {member: seat.view() for member, seat in self._state.roster.seats.items()}

    @property
    def next_ticket(self) -> int:
        """First ticket never handed out: what a successor starts at."""
        return self._state.tickets.next

    @property
    def returned(self) -> tuple[int, ...]:
        """Tickets a successor should hand out first: given back, reserved, in flight, or not yet applied."""
        return self._state.unfinished_tickets()

    @property
    def iterations_total(self) -> int | None:
        """Updates at the end, exact or estimated."""
        return iterations_total(self._state)

    @property
    def examples_total(self) -> int | None:
        """Examples at the end, exact or estimated."""
        return examples_total(self._state)

    @property
    def phase(self) -> Phase:
        """What the job is doing."""
        state = self._state
        if state.finish is not None:
            return state.finish.outcome
        if state.verdict is not None:
            return "Evaluating"
        return "Training" if state.begun else "Joining"

    @property
    def reason(self) -> str:
        """CamelCase word for the phase; empty while all is well."""
        return self._explain()[0]

    @property
    def message(self) -> str:
        """The reason in words."""
        return self._explain()[1]

    def _explain(self) -> tuple[str, str]:
        state = self._state
        if state.verdict is not None:
            return state.verdict.reason, state.verdict.message
        live, needed = state.roster.live, state.quorum.needed
        left = state.quorum.time_left(state.now)
        if left is not None and live < needed:
            word = "BelowQuorum" if state.begun else "WaitingForWorkers"
            return word, f"{live} of {needed} workers are live; {left:.0f} s until the deadline"
        if state.suspending_since is not None:
            return "Suspending", "the running iteration may complete"
        if state.evaluations.pausing:
            return "PausedForEvaluation", "nobody can be spared: everyone waits for the evaluation"
        if state.quorum.shrunk is not None:
            return (
                "Shrunk",
                f"{state.quorum.required} gradients make an iteration until more workers are live",
            )
        return "", ""


def _settle(state: State) -> None:
    """Find what follows from the state, until nothing more does."""
    while state.verdict is None:
        if state.stirred:
            state.stirred = False
            iterating.watch(state)
        elif iterating.is_complete(state):
            iterating.complete(state)
        elif state.reopen:
            assigning.hand_out(state)
        elif not iterating.end_of_data(state):
            break
    iterating.watch_suspension(state)
    if state.verdict is not None:
        ending.conclude(state)


def _ready(state: State, event: events.Ready) -> None:
    seat = state.roster.get(event.member)
    if seat is not None:
        assigning.ready(state, seat, event.holds)
        state.stirred = state.stirred or not state.begun


def _data_length(state: State, event: events.DataLength) -> None:
    epochs = state.spec.training.epochs
    if state.batches_per_epoch is None and event.batches_per_epoch is not None:
        state.batches_per_epoch = event.batches_per_epoch
        if epochs is not None:
            limit = epochs * event.batches_per_epoch
            state.tickets.end_at(limit)
            for seat in state.roster.seats.values():
                if seat.reserved is not None and seat.reserved >= limit:
                    seat.reserved = None


def _tick(state: State, _: events.Tick) -> None:
    state.stirred = True


_HANDLERS: dict[type, Callable[[State, Any], None]] = {
    events.Desire: membership.desired,
    events.Joined: membership.joined,
    events.Left: membership.left,
    events.Ready: _ready,
    events.Committed: gradients.committed,
    events.Abandoned: gradients.abandoned,
    events.Exhausted: gradients.exhausted,
    events.Evaluated: evaluating.evaluated,
    events.DataLength: _data_length,
    events.Tick: _tick,
}
