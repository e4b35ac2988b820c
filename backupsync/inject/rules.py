"""The rules of an injection profile: each a kind of slowness, bound to ranks, attempts or nodes.

Parameters come from measured clusters; the figures and their sources stand beside each profile in
examples/profiles/. A factor multiplies the step time, seconds are added to it.
"""

from abc import ABC, abstractmethod
from enum import StrEnum
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator
from typing_extensions import override

from backupsync.inject import draws
from backupsync.spec.base import SpecModel

Index = Annotated[int, Field(ge=0)]


class Step(NamedTuple):
    """Whose step it is: what a rule's draw may depend on."""

    rank: int
    attempt: int
    start: int
    node: str
    iteration: int
    ticket: int


class Effect(NamedTuple):
    """What a rule does to a step."""

    factor: float = 1.0
    seconds: float = 0.0
    kill: bool = False


class DrawnBy(StrEnum):
    """What a random rule's draws are independent between."""

    STEP = "Step"
    """Every (rank, iteration) draws for itself."""
    ITERATION = "Iteration"
    """All ranks share one draw per iteration: a common cause."""
    TICKET = "Ticket"
    """Every mini-batch has its own, on whichever rank: speed depends on data."""


class _Rule(SpecModel, ABC):
    ranks: list[Index] | None = Field(default=None, min_length=1)
    """Ranks it applies to; absent: every rank."""
    attempts: list[Index] | None = Field(default=None, min_length=1)
    """Attempts it applies to, counted from 1; absent: every attempt."""
    nodes: list[str] | None = Field(default=None, min_length=1)
    """Nodes it applies to, by shell pattern; absent: every node."""
    first_iteration: int = Field(default=0, ge=0)
    """Iteration from which it applies."""
    iterations: int | None = Field(default=None, ge=1)
    """Number of iterations it applies for; absent: to the end."""

    @abstractmethod
    def effect(self, seed: int, step: Step) -> Effect:
        """What the rule does to a step it applies to; `seed` is the rule's own."""


class _RandomRule(_Rule):
    drawn_by: DrawnBy = DrawnBy.STEP
    """Step: each (rank, iteration) for itself; Iteration: one draw for all ranks; Ticket: by mini-batch."""

    def uniform(self, seed: int, step: Step, what: str = "") -> float:
        """Return the step's number in (0, 1)."""
        match self.drawn_by:
            case DrawnBy.STEP:
                return draws.uniform(seed, "step", step.rank, step.iteration, what)
            case DrawnBy.ITERATION:
                return draws.uniform(seed, "iteration", step.iteration, what)
            case DrawnBy.TICKET:
                return draws.uniform(seed, "ticket", step.ticket, what)


class Normal(_RandomRule):
    """Jitter of a healthy worker."""

    kind: Literal["Normal"]
    deviation: float = Field(gt=0)
    """Standard deviation of the factor around 1."""

    @override
    def effect(self, seed: int, step: Step) -> Effect:
        """Factor ~ Normal(1, deviation)."""
        return Effect(draws.normal(self.uniform(seed, step), 1.0, self.deviation))


class LogNormal(_RandomRule):
    """Skewed jitter around a median of 1."""

    kind: Literal["LogNormal"]
    sigma: float = Field(gt=0)
    """Standard deviation of the factor's logarithm."""

    @override
    def effect(self, seed: int, step: Step) -> Effect:
        """Factor ~ LogNormal(0, sigma)."""
        return Effect(draws.lognormal(self.uniform(seed, step), self.sigma))


class Gumbel(_RandomRule):
    """The tail of data-dependent step times (a language model's sequence lengths)."""

    kind: Literal["Gumbel"]
    loc: float
    """Mode of the factor."""
    scale: float = Field(gt=0)
    """Scale of the factor."""

    @override
    def effect(self, seed: int, step: Step) -> Effect:
        """Factor ~ Gumbel(loc, scale)."""
        return Effect(draws.gumbel(self.uniform(seed, step), self.loc, self.scale))


class Exponential(_RandomRule):
    """The shifted exponential of the coding literature."""

    kind: Literal["Exponential"]
    mean: float = Field(gt=0)
    """Mean excess over 1."""

    @override
    def effect(self, seed: int, step: Step) -> Effect:
        """Factor ~ 1 + Exp(mean)."""
        return Effect(1.0 + draws.exponential(self.uniform(seed, step), self.mean))


class Pareto(_RandomRule):
    """A heavy tail."""

    kind: Literal["Pareto"]
    alpha: float = Field(gt=0)
    """Tail index; the mean is infinite at 1 and below."""

    @override
    def effect(self, seed: int, step: Step) -> Effect:
        """Factor ~ Pareto(1, alpha)."""
        return Effect(draws.pareto(self.uniform(seed, step), self.alpha))


class BetaBinomialTail(_Rule):
    """A shared data centre: rare slow steps that come in mild bursts, since all ranks share their chance.

    Each iteration draws a probability from Beta(alpha, beta); each rank is slow with it, for
    threshold + Exp(meanExcess), and otherwise takes a lognormal body cut at the threshold.
    """

    kind: Literal["BetaBinomialTail"]
    alpha: float = Field(gt=0)
    """First parameter of Beta."""
    beta: float = Field(gt=0)
    """Second parameter of Beta; the mean probability is alpha / (alpha + beta)."""
    threshold: float = Field(gt=1)
    """Factor from which a step counts as slow."""
    mean_excess: float = Field(gt=0)
    """Mean of the exponential excess over the threshold."""
    sigma: float = Field(default=0.05, gt=0)
    """Log-deviation of the healthy body."""

    @override
    def effect(self, seed: int, step: Step) -> Effect:
        """Factor of the body or of the tail."""
        probability = draws.beta(self.alpha, self.beta, seed, "probability", step.iteration)
        if draws.uniform(seed, "slow", step.rank, step.iteration) < probability:
            u = draws.uniform(seed, "excess", step.rank, step.iteration)
            return Effect(self.threshold + draws.exponential(u, self.mean_excess))
        body = draws.lognormal(draws.uniform(seed, "body", step.rank, step.iteration), self.sigma)
        return Effect(min(body, self.threshold))


class Persistent(_Rule):
    """A constant factor: a worker on a bad machine, or an episode by firstIteration and iterations."""

    kind: Literal["Persistent"]
    factor: float = Field(gt=0)
    """Factor of every step."""

    @override
    def effect(self, seed: int, step: Step) -> Effect:
        """The factor."""
        return Effect(self.factor)


class Sometimes(_RandomRule):
    """A factor on some steps; with drawnBy Ticket, on some mini-batches."""

    kind: Literal["Sometimes"]
    probability: float = Field(gt=0, le=1)
    """Share of steps (iterations, mini-batches) that are slow."""
    factor: float = Field(gt=0)
    """Factor of a slow one."""

    @override
    def effect(self, seed: int, step: Step) -> Effect:
        """The factor, or 1."""
        return Effect(self.factor if self.uniform(seed, step) < self.probability else 1.0)


class Pause(_RandomRule):
    """Seconds added to some steps: a garbage collection, unsynchronised between workers."""

    kind: Literal["Pause"]
    every: float = Field(ge=1)
    """Mean number of steps from one pause to the next."""
    minimum_seconds: float = Field(ge=0)
    """Shortest pause."""
    maximum_seconds: float = Field(gt=0)
    """Longest pause."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.maximum_seconds < self.minimum_seconds:
            raise ValueError(
                f"maximumSeconds {self.maximum_seconds:g} must not be below minimumSeconds "
                f"{self.minimum_seconds:g}"
            )
        return self

    @override
    def effect(self, seed: int, step: Step) -> Effect:
        """Seconds, uniform between minimum and maximum, or none."""
        if self.uniform(seed, step) * self.every >= 1.0:
            return Effect()
        span = self.maximum_seconds - self.minimum_seconds
        return Effect(seconds=self.minimum_seconds + span * self.uniform(seed, step, "length"))


class Kill(_Rule):
    """The process dies, as by the out-of-memory killer, at its first step from firstIteration on.

    Bound to attempt 1 and its first start unless it says otherwise, so that the replacement lives.
    """

    kind: Literal["Kill"]
    attempts: list[Index] | None = Field(default=[1], min_length=1)
    """Attempts that die, counted from 1; null: every attempt."""
    starts: list[Index] | None = Field(default=[0], min_length=1)
    """Starts of the attempt that die, counted from 0; null: every restart in place too."""

    @override
    def effect(self, seed: int, step: Step) -> Effect:
        """Death."""
        return Effect(kill=self.starts is None or step.start in self.starts)


Rule = Annotated[
    Normal
    | LogNormal
    | Gumbel
    | Exponential
    | Pareto
    | BetaBinomialTail
    | Persistent
    | Sometimes
    | Pause
    | Kill,
    Field(discriminator="kind"),
]
