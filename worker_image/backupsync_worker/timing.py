"""Where a worker's time goes: wall clock by phase, CPU, run queue and throttling, per gradient.

CPU time beside wall time is what tells a slow program from a crowded or limited machine.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from backupsync.wire.messages import Timing

Part = Literal["data", "push"]


@dataclass(frozen=True)
class Usage:
    """What the kernel has counted for this process so far, in seconds; 0 where it does not say."""

    cpu: float
    run_queue: float
    throttled: float

    @staticmethod
    def now() -> "Usage":
        """Read the kernel's counters."""
        return Usage(time.process_time(), _run_queue_seconds(), _throttled_seconds())


@dataclass
class Stopwatch:
    """Splits the time of one gradient: whatever is neither data nor push is compute."""

    began: float = field(default_factory=time.monotonic)
    injected: float = 0.0
    """Step time that the injection profile asked for, in seconds."""
    _parts: dict[Part, float] = field(default_factory=lambda: {"data": 0.0, "push": 0.0})
    _usage: Usage = field(default_factory=Usage.now)

    @property
    def elapsed(self) -> float:
        """Seconds since the parameters and the ticket were there."""
        return time.monotonic() - self.began

    @property
    def compute(self) -> float:
        """Seconds of forward and backward so far, injected slowness included."""
        return max(0.0, self.elapsed - sum(self._parts.values()))

    @contextmanager
    def measure(self, part: Part) -> Iterator[None]:
        """Count the time of the block towards `part`, also when it raises."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._parts[part] += time.monotonic() - began

    def timing(self) -> Timing:
        """Return what the wire carries."""
        usage = Usage.now()
        return Timing(
            compute=self.compute,
            data=self._parts["data"],
            push=self._parts["push"],
            cpu=max(0.0, usage.cpu - self._usage.cpu),
            run_queue=max(0.0, usage.run_queue - self._usage.run_queue),
            throttled=max(0.0, usage.throttled - self._usage.throttled),
            injected=self.injected,
        )


def _run_queue_seconds() -> float:
    """Seconds that this process's threads were runnable but waited for a CPU (/proc, 2nd schedstat field)."""
    total = 0
    try:
        for task in Path("/proc/self/task").iterdir():
            total += int((task / "schedstat").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        # A thread that ended meanwhile, or a kernel without CONFIG_SCHEDSTATS.
        return total / 1e9
    return total / 1e9


def _throttled_seconds() -> float:
    """Seconds that the cgroup's CFS quota held it back (cpu.stat of cgroup v2 or v1)."""
    path = _cpu_stat()
    if path is None:
        return 0.0
    try:
        values = dict(line.split() for line in path.read_text(encoding="ascii").splitlines())
        if "throttled_usec" in values:
            return int(values["throttled_usec"]) / 1e6
        return int(values.get("throttled_time", 0)) / 1e9
    except (OSError, ValueError):
        return 0.0


@cache
def _cpu_stat() -> Path | None:
    """Find cpu.stat of the own cgroup: inside a container it is the root of the mount."""
    root = Path("/sys/fs/cgroup")
    candidates = []
    try:
        for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                candidates.append(root / path.lstrip("/") / "cpu.stat")
            elif "cpu" in controllers.split(","):
                candidates.append(root / controllers / path.lstrip("/") / "cpu.stat")
                candidates.append(root / "cpu" / path.lstrip("/") / "cpu.stat")
    except (OSError, ValueError):
        pass
    candidates += [root / "cpu.stat", root / "cpu" / "cpu.stat"]
    return next((c for c in candidates if c.is_file()), None)
