"""How far the job has to go: exact where the manifest says so, else estimated from how it went so far."""

import math

from backupsync_aggregator.round.state import State


def iterations_total(state: State) -> int | None:
    """Updates at the end of the job; None while nothing is known."""
    training = state.spec.training
    if training.iterations is not None:
        return training.iterations
    if training.examples is not None:
        left = max(0, training.examples - state.examples)
        return state.iteration + math.ceil(left / _examples_per_iteration(state))
    tickets = _tickets_left(state)
    if tickets is None:
        return None
    return state.iteration + math.ceil(tickets / _tickets_per_iteration(state))


def examples_total(state: State) -> int | None:
    """Applied examples at the end of the job; None while nothing is known."""
    training = state.spec.training
    if training.examples is not None:
        return training.examples
    iterations = iterations_total(state)
    if iterations is None:
        return None
    left = max(0, iterations - state.iteration)
    return state.examples + round(left * _examples_per_iteration(state))


def _examples_per_iteration(state: State) -> float:
    return float(state.quorum.required * state.spec.training.batch_size)


def _tickets_left(state: State) -> int | None:
    if state.tickets.limit is None:
        return None
    return max(0, state.tickets.limit - state.tickets.next) + len(state.unfinished_tickets())


def _tickets_per_iteration(state: State) -> float:
    """Tickets that one update costs: N, or up to N + b where those of dropped gradients are gone."""
    done = state.iteration - state.origin.iteration
    if state.tickets.requeues or done < 1:
        return float(state.quorum.required)
    used = state.tickets.next - state.origin.next_ticket + len(state.origin.returned)
    used -= len(state.unfinished_tickets())
    return max(float(state.quorum.required), used / done)
