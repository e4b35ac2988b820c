"""What the injected slowness alone would cost: the order statistics that no implementation can beat."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from backupsync.inject.injector import Injector
from backupsync.inject.profile import Profile, as_profile


class Place(NamedTuple):
    """Who works in an iteration."""

    rank: int
    attempt: int = 1
    node: str = "local"


def local_node(rank: int, attempt: int) -> str:
    """Return the virtual node of a worker of a local run: every attempt has its own."""
    return f"node-{rank}" if attempt == 1 else f"node-{rank}-{attempt}"


def ideal_step_seconds(
    profile: Profile | dict[str, Any], iteration: int, places: Sequence[Place]
) -> list[float] | None:
    """Injected step times of one iteration, ascending, were every place to begin it at once.

    None where a step time is not absolute (no stepSeconds, a rank without recorded times). Rules drawn by
    ticket get the tickets that an undisturbed run would hand out: len(places) in every iteration.
    """
    asked = [
        Injector(profile, *place).step(iteration, iteration * len(places) + index).seconds
        for index, place in enumerate(places)
    ]
    return None if None in asked else sorted(seconds for seconds in asked if seconds is not None)


def ideal_seconds(
    profile: Profile | dict[str, Any] | None,
    iterations: Iterable[int],
    ranks: Sequence[int] | Callable[[int], Sequence[Place]],
    required: int | Callable[[int], int],
) -> list[float] | None:
    """N-th order statistic of the injected step times, one per iteration (paper, section 3).

    `ranks` are the N+b ranks (attempt 1), or a function from iteration to places; `required` is N, or a
    function from iteration to N. None where the profile gives no absolute times.
    """
    profile = as_profile(profile)
    if profile is None:
        return None
    first = [Place(rank) for rank in ranks] if not callable(ranks) else []
    ideal = []
    for iteration in iterations:
        places = ranks(iteration) if callable(ranks) else first
        asked = ideal_step_seconds(profile, iteration, places)
        n = required(iteration) if callable(required) else required
        if asked is None or len(asked) < n:
            return None
        ideal.append(asked[n - 1])
    return ideal
