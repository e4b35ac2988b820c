"""What must hold of every update, read from the trace that the aggregator writes."""

from collections import defaultdict
from collections.abc import Iterable

from backupsync.trace import Gradient, Iteration, Line


def check_rounds(lines: Iterable[Line]) -> int:
    """Check one aggregator's trace: each update averages exactly N gradients, never two of one rank.

    Returns the number of updates. Raises AssertionError naming the first one that is wrong.
    """
    accepted: dict[int, list[Gradient]] = defaultdict(list)
    updates: list[Iteration] = []
    for line in lines:
        if isinstance(line, Gradient) and line.outcome == "accepted":
            assert line.applied_at == line.iteration, f"a stale gradient was applied: {line}"
            accepted[line.iteration].append(line)
        elif isinstance(line, Iteration):
            updates.append(line)
            _check_update(line, accepted.pop(line.iteration, []))
    numbers = [u.iteration for u in updates]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True, numbers
    return len(updates)


def _check_update(update: Iteration, gradients: list[Gradient]) -> None:
    said = f"update {update.iteration}: {update}, accepted {gradients}"
    assert update.accepted == len(gradients), said
    assert update.accepted == update.required or update.note, said
    assert len({g.rank for g in gradients}) == len(gradients), f"two gradients of one rank in {said}"
    assert sorted(g.place for g in gradients if g.place is not None) == list(range(len(gradients))), said


def accepted_by(lines: Iterable[Line], rank: int, attempt: int) -> list[int]:
    """Iterations in which a gradient of this pair was accepted."""
    return [
        line.iteration
        for line in lines
        if isinstance(line, Gradient)
        and (line.rank, line.attempt, line.outcome) == (rank, attempt, "accepted")
    ]
