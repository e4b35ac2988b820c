"""How long each part took: printed as a table, because a slow cluster is a cluster nobody starts."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Durations by name, in the order in which the parts began. Parts may overlap."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._parts: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a part."""
        with self._lock:
            self._parts[name] = 0.0
        began = time.monotonic()
        try:
            yield
        finally:
            self._parts[name] = time.monotonic() - began

    def table(self) -> str:
        """One line per part, and the wall time of all of them, in seconds."""
        rows = [*self._parts.items(), ("together", time.monotonic() - self._began)]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"  {name:<{width}}  {seconds:7.1f} s" for name, seconds in rows)
