"""Imported once by the forkserver: what is slow to import, and its own death with the engine's."""

from contextlib import suppress
from importlib import import_module

from backupsync.local.child import ROLE_MODULES, die_with_parent

die_with_parent()
for _module in ("torch", *ROLE_MODULES.values()):
    # A role that cannot be imported says so in its own log, where people look.
    with suppress(Exception):
        import_module(_module)
