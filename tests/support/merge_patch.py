"""JSON merge patch, as every fake API server of the tests applies it."""

from typing import Any


def merged(target: Any, patch: Any) -> Any:
    """Apply `patch` to `target`, neither of which is changed (RFC 7396, section 2, word for word)."""
    if not isinstance(patch, dict):
        return patch
    made = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = merged(made.get(key), value)
    return made
