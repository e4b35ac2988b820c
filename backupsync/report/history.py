"""The part of a trace that stands: what a resume threw away is taken out while reading."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from backupsync.inject import Place, local_node
from backupsync.trace import (
    Ended,
    Evaluation,
    Gradient,
    Header,
    Iteration,
    Line,
    Resized,
    Resumed,
    TraceError,
)


@dataclass
class History:
    """Every line of a trace by kind; iterations that a later epoch began again are gone."""

    header: Header
    iterations: list[Iteration] = field(default_factory=list)
    gradients: list[Gradient] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    resized: list[Resized] = field(default_factory=list)
    resumes: int = 0
    ended: Ended | None = None
    began: float | None = None
    """When the first iteration began, by the job's clock; it counts even if that iteration was lost."""

    @classmethod
    def read(cls, lines: Iterable[Line]) -> "History":
        """Sort the lines of a trace. Raises TraceError when the header is not the first."""
        rest = iter(lines)
        header = next(rest, None)
        if not isinstance(header, Header):
            raise TraceError("the trace does not begin with its header line: nothing says what job it is of")
        history = cls(header)
        for line in rest:
            history._take(line)
        return history

    def _take(self, line: Line) -> None:
        match line:
            case Gradient():
                self.gradients.append(line)
            case Iteration():
                self.iterations.append(line)
                if self.began is None:
                    self.began = line.at - line.seconds
            case Evaluation():
                self.evaluations.append(line)
            case Resized():
                self.resized.append(line)
            case Resumed():
                self._rewind(line.iteration)
            case Ended():
                self.ended = line
            case _:
                pass

    def _rewind(self, iteration: int) -> None:
        """Forget what happened in and beyond an iteration: it was lost with its aggregator."""
        self.resumes += 1
        self.ended = None
        self.iterations = [i for i in self.iterations if i.iteration < iteration]
        self.gradients = [g for g in self.gradients if applied_in(g) < iteration]
        self.evaluations = [e for e in self.evaluations if e.iteration <= iteration]
        self.resized = [r for r in self.resized if r.iteration < iteration]

    @property
    def aggregation(self) -> dict[str, Any]:
        """The manifest's own words on N, b and the mode."""
        found: dict[str, Any] = self.header.manifest.get("spec", {}).get("aggregation", {})
        return found

    @property
    def wall_seconds(self) -> float:
        """From the beginning of the first iteration to the last update."""
        return self.iterations[-1].at - (self.began or 0.0) if self.iterations else 0.0


class Places:
    """The N+b members of every iteration: by manifest, resizes and the attempts that sent gradients."""

    def __init__(self, history: History) -> None:
        told = history.aggregation
        first = int(told.get("workers", 1)), int(told.get("backupWorkers", 0))
        self._sizes = [(0, *first), *((r.iteration, r.required, r.backups) for r in history.resized)]
        self._attempts: dict[int, list[tuple[int, int]]] = {}
        for gradient in history.gradients:
            known = self._attempts.setdefault(gradient.rank, [])
            if not known or known[-1][1] < gradient.attempt:
                known.append((gradient.iteration, gradient.attempt))

    def __call__(self, iteration: int) -> list[Place]:
        """Return the members of the iteration; the nodes are those of a local run."""
        _, required, backups = [size for size in self._sizes if size[0] <= iteration][-1]
        return [self._place(rank, iteration) for rank in range(required + backups)]

    def _place(self, rank: int, iteration: int) -> Place:
        begun = [attempt for since, attempt in self._attempts.get(rank, []) if since <= iteration]
        attempt = begun[-1] if begun else 1
        return Place(rank, attempt, local_node(rank, attempt))


def applied_in(gradient: Gradient) -> int:
    """Number of the update that the gradient belongs to."""
    return gradient.iteration if gradient.applied_at is None else gradient.applied_at
