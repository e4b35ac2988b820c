"""Straggler injection: seeded slowness that stands where real slowness would.

`load_profile` reads a profile; an `Injector` tells one worker how long each of its steps takes.
"""

from backupsync.inject.ideal import Place, ideal_seconds, ideal_step_seconds, local_node
from backupsync.inject.injector import InjectedStep, Injector
from backupsync.inject.profile import Profile, ProfileError, Resource, as_profile, load_profile, parse_profile

__all__ = [
    "InjectedStep",
    "Injector",
    "Place",
    "Profile",
    "ProfileError",
    "Resource",
    "as_profile",
    "ideal_seconds",
    "ideal_step_seconds",
    "load_profile",
    "local_node",
    "parse_profile",
]
