"""The injection profile: who is slow, by how much, how the time is spent."""

from enum import StrEnum
from fnmatch import fnmatchcase
from functools import reduce
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from backupsync.inject import draws
from backupsync.inject.recorded import read_recorded
from backupsync.inject.rules import Effect, Rule, Step
from backupsync.spec.base import SpecModel
from backupsync.spec.document import DocumentError, Problem, parse, read_text


class ProfileError(DocumentError):
    """A profile that cannot be injected; `problems` names every reason."""


class Resource(StrEnum):
    """How injected time is spent."""

    SLEEP = "Sleep"
    """Waiting: costs the machine nothing, as if each worker had one of its own."""
    CPU = "Cpu"
    """Spinning: takes the CPU from whoever shares it, as a hog does."""


class Recorded(SpecModel):
    """Step times measured elsewhere, replayed."""

    path: str = Field(min_length=1)
    """CSV or JSONL file with iteration, rank and seconds, relative to the profile."""
    scale: float = Field(default=1.0, gt=0)
    """Factor of every recorded time."""
    times: dict[int, list[float | None]] | None = None
    """What the file says, by rank and iteration; filled in when the profile is loaded."""

    def seconds(self, rank: int, iteration: int) -> float | None:
        """Recorded step time; past the last iteration the recording begins again. None for unknown ranks."""
        row = (self.times or {}).get(rank)
        if row is None:
            return None
        length = max(map(len, (self.times or {}).values()))
        at = iteration % length
        known = row[at] if at < len(row) else None
        return self.scale * (known if known is not None else _median(row))


class Profile(SpecModel):
    """A straggler injection profile."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    """Every draw is a function of this, the rule's position, and the step it is for."""
    step_seconds: float | None = Field(default=None, gt=0)
    """Step time of a healthy worker: a step takes this times its factors, or longer where the real
    computation does. Absent: the factors stretch the real computation."""
    recorded: Recorded | None = None
    """Step times from a file, in place of stepSeconds."""
    resource: Resource = Resource.SLEEP
    """Sleep or Cpu: how the time is spent."""
    rules: list[Rule] = []
    """Kinds of slowness; all that apply to a step multiply (factors) and add (seconds)."""

    @model_validator(mode="after")
    def _one_base(self) -> Self:
        if self.step_seconds is not None and self.recorded is not None:
            raise ValueError("set stepSeconds or recorded, not both: each says how long a step takes")
        return self

    def base_seconds(self, rank: int, iteration: int) -> float | None:
        """Step time before any rule; None where the real computation is what takes the time."""
        return self.recorded.seconds(rank, iteration) if self.recorded else self.step_seconds

    def effect(self, step: Step) -> Effect:
        """What all the rules together do to a step."""
        effects = (
            rule.effect(draws.digest(self.seed, "rule", index), step)
            for index, rule in enumerate(self.rules)
            if _applies(rule, step)
        )
        return reduce(_together, effects, Effect())

    def dump(self) -> dict[str, Any]:
        """Return the profile as plain data with everything filled in, as a launch and a trace carry it."""
        return self.model_dump(mode="json", by_alias=True)


def load_profile(path: Path) -> Profile:
    """Read the profile at `path`, recorded times included. Raises ProfileError with every problem in it."""
    profile = parse_profile(read_text(path, ProfileError), str(path))
    if profile.recorded is None or profile.recorded.times is not None:
        return profile
    file = path.parent / profile.recorded.path
    times, problems = read_recorded(file)
    if problems:
        raise ProfileError(str(file), [Problem(*problem) for problem in problems])
    return profile.model_copy(update={"recorded": profile.recorded.model_copy(update={"times": times})})


def parse_profile(text: str, source: str = "profile") -> Profile:
    """Check the YAML `text`; `source` names it in errors. Raises ProfileError with every problem in it."""
    return parse(text, source, Profile, ProfileError)


def as_profile(profile: Profile | dict[str, Any] | None) -> Profile | None:
    """Return the profile that a launch or a trace's header carries. Raises ProfileError."""
    if profile is None or isinstance(profile, Profile):
        return profile
    try:
        return Profile.model_validate(profile)
    except ValidationError as error:
        raise ProfileError("injection", [Problem("profile", "", str(error))]) from error


def _applies(rule: Rule, step: Step) -> bool:
    begun = step.iteration - rule.first_iteration
    return (
        (rule.ranks is None or step.rank in rule.ranks)
        and (rule.attempts is None or step.attempt in rule.attempts)
        and (rule.nodes is None or any(fnmatchcase(step.node, pattern) for pattern in rule.nodes))
        and begun >= 0
        and (rule.iterations is None or begun < rule.iterations)
    )


def _together(one: Effect, other: Effect) -> Effect:
    return Effect(one.factor * other.factor, one.seconds + other.seconds, one.kill or other.kill)


def _median(row: list[float | None]) -> float:
    known = sorted(seconds for seconds in row if seconds is not None)
    return known[len(known) // 2]
