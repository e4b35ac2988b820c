"""Plans in words: what is done to whom, and why; replicas that share a fate share a line."""

from collections.abc import Iterable, Iterator
from itertools import groupby

from backupsync.lifecycle.types import Action, Announce, Delete, ReplicaId, Start, Stop, Tell


def name_of(replica: ReplicaId) -> str:
    """A replica in words."""
    if replica.role == "aggregator":
        return f"aggregator (epoch {replica.attempt})"
    return f"worker {replica.rank} (attempt {replica.attempt})"


def explain(lines: Iterable[str | Action]) -> tuple[str, ...]:
    """Return a plan's notes and actions as lines, in their order; equal lines are said once."""
    said = (line for _, group in groupby(lines, _fate) for line in _together(list(group)))
    return tuple(dict.fromkeys(said))


def ranks_of(numbers: Iterable[int]) -> str:
    """Ranks as ranges: `0-3, 7`."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _fate(line: str | Action) -> object:
    """What lines must share to be said together."""
    if isinstance(line, Start | Stop) and line.replica.role == "worker":
        return type(line), line.replica.attempt, line.reason
    return line


def _together(group: list[str | Action]) -> Iterator[str]:
    first = group[0]
    if len(group) == 1 or not isinstance(first, Start | Stop):
        yield from (_sentence(line) for line in group)
        return
    verb = "start" if isinstance(first, Start) else "stop"
    ranks = ranks_of(line.replica.rank for line in group if isinstance(line, Start | Stop))
    yield f"{verb} workers {ranks} (attempt {first.replica.attempt}): {first.reason}"


def _sentence(line: str | Action) -> str:
    match line:
        case str():
            return line
        case Start(replica=replica, reason=reason):
            return f"start {name_of(replica)}: {reason}"
        case Stop(replica=replica, reason=reason):
            return f"stop {name_of(replica)}: {reason}"
        case Tell(desired=desired, reason=reason):
            return f"tell the aggregator generation {desired.generation}: {reason}"
        case Announce(message=message):
            return message
        case Delete(reason=reason):
            return f"delete the job: {reason}"
