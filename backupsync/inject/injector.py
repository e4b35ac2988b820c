"""What one worker asks at every step: how long it takes, and how the time is spent."""

from typing import Any, NamedTuple

from backupsync.inject.profile import Profile, Resource, as_profile
from backupsync.inject.rules import Step


class InjectedStep(NamedTuple):
    """The slowness of one step."""

    seconds: float | None
    """Step time asked for, everything included; None where the real computation is what is stretched."""
    factor: float
    """Product of the factors that apply."""
    extra_seconds: float
    """Sum of the seconds that are added (included in `seconds`)."""
    resource: Resource
    kill: bool
    """The process must die now."""

    @property
    def hog(self) -> bool:
        """Whether the time is spent spinning rather than sleeping."""
        return self.resource is Resource.CPU

    def due(self, computed: float) -> float:
        """Seconds after the step's begin at which it must end, if its real computation took `computed`."""
        asked = self.seconds if self.seconds is not None else computed * self.factor + self.extra_seconds
        return max(computed, asked)


_HEALTHY = InjectedStep(None, 1.0, 0.0, Resource.SLEEP, kill=False)


class Injector:
    """The profile as one worker process feels it; without a profile every step is its own."""

    def __init__(
        self, profile: Profile | dict[str, Any] | None, rank: int, attempt: int, node: str, start: int = 0
    ) -> None:
        """Raises ProfileError when `profile` is not one."""
        self._profile = as_profile(profile)
        self._who = (rank, attempt, start, node)

    def step(self, iteration: int, ticket: int) -> InjectedStep:
        """Return the slowness of one step: a pure function of profile, who, iteration and ticket."""
        if self._profile is None:
            return _HEALTHY
        step = Step(*self._who, iteration, ticket)
        effect = self._profile.effect(step)
        factor = max(effect.factor, 0.0)
        base = self._profile.base_seconds(step.rank, iteration)
        seconds = None if base is None else base * factor + effect.seconds
        return InjectedStep(seconds, factor, effect.seconds, self._profile.resource, effect.kill)
