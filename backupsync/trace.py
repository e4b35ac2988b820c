"""The trace: one JSON line per decision. Plots, tests, planner, simulator and replay all read this format.

Lines in order: a Header, then whatever happened; a Resumed line begins each later epoch (iterations at or
beyond its `iteration` that stand above it were lost with the previous aggregator). Times are seconds on the
clock of one aggregator; `at` counts from the job's first start as wall-clock seconds.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Self

import msgspec
from msgspec import Struct

from backupsync.errors import BackupSyncError

TRACE_VERSION = 1


class _Line(Struct, frozen=True, kw_only=True, tag_field="kind", forbid_unknown_fields=True):
    """Common base: `kind` names the line."""


class Header(_Line, tag="header", frozen=True, kw_only=True):
    """First line: what replay must match."""

    trace_version: int = TRACE_VERSION
    """Readers refuse what they do not know."""
    job: str
    """Name of the job."""
    uid: str
    """uid of the job."""
    manifest: dict[str, Any]
    """The whole manifest, with every default filled in."""
    started: float
    """Unix time of the first start."""
    initial_digest: str
    """SHA-256 (hex) of the initial moving and frozen sections."""
    batches_per_epoch: int | None = None
    """Mini-batches of one pass over the data; None where it has no length."""
    versions: dict[str, str] = {}
    """backupsync, python, torch, numpy, cpu capability: whatever must match for the same bits."""
    threads: int
    """Intra-op threads of every worker."""
    aggregator_threads: int = 1
    """Intra-op threads of the aggregator."""
    injection: dict[str, Any] | None = None
    """The injection profile, filled in."""


class Gradient(_Line, tag="gradient", frozen=True, kw_only=True):
    """What became of one gradient."""

    at: float
    """When it was decided."""
    iteration: int
    """Iteration whose parameters it was computed on."""
    rank: int
    attempt: int
    ticket: int
    """The mini-batch, and every random number of its computation."""
    outcome: str
    """accepted | dropped | refused."""
    place: int | None = None
    """Order of acceptance in its iteration, from 0: the order of the sum."""
    reason: str | None = None
    """Why it was dropped or refused, in the wire's words (late, abandoned, not-finite, ...)."""
    applied_at: int | None = None
    """Iteration it was applied in; differs from `iteration` only in Async (the rest is staleness)."""
    examples: int = 0
    """In its mini-batch: its weight in the mean."""
    scale: float = 1.0
    """Factor of clipping by global norm."""
    loss: float | None = None
    """Mean loss of its mini-batch."""
    arrival_seconds: float | None = None
    """Since the iteration began."""
    busy_seconds: float | None = None
    """Since the parameters were handed to this worker, by the aggregator's clock."""
    compute_seconds: float | None = None
    """Forward and backward, by the worker's clock, injected slowness included."""
    data_seconds: float | None = None
    """Waiting for the mini-batch."""
    push_seconds: float | None = None
    """Sending."""
    injected_seconds: float | None = None
    """Step time that the injection profile asked for."""
    to_the_end: bool = False
    """Pre-drawn to run to the end: its compute time is uncensored."""


class Iteration(_Line, tag="iteration", frozen=True, kw_only=True):
    """One update."""

    at: float
    """When it was applied."""
    iteration: int
    """Number of the update, from 0."""
    required: int
    """N in force."""
    accepted: int
    """Gradients averaged: N, unless `note` says why fewer."""
    live: int
    """Workers live at that moment."""
    seconds: float
    """Since the iteration began: the N-th arrival and the update."""
    apply_seconds: float = 0.0
    """Of which: averaging and the optimizer's step."""
    examples: int
    """Applied so far, this update included."""
    loss: float | None = None
    """Mean over the accepted gradients, weighted by examples."""
    learning_rate: float | None = None
    """Of the first parameter group."""
    note: str | None = None
    """EndOfData | Shrunk | None."""


class Resized(_Line, tag="resized", frozen=True, kw_only=True):
    """N or b changed between iterations."""

    at: float
    iteration: int
    """First iteration with the new sizes."""
    required: int
    """N."""
    backups: int
    """b."""


class Membership(_Line, tag="membership", frozen=True, kw_only=True):
    """A member joined, was lost, promoted, fenced or released."""

    at: float
    iteration: int
    rank: int
    attempt: int
    start: int = 0
    """Restarts in place of this attempt before."""
    event: str
    """What happened to the member."""
    detail: str = ""


class Resumed(_Line, tag="resumed", frozen=True, kw_only=True):
    """A new aggregator took over from a checkpoint."""

    at: float
    epoch: int
    """Of the new aggregator."""
    iteration: int
    """The next update: the checkpoint's."""
    next_ticket: int
    """The next ticket to be handed out."""


class Evaluation(_Line, tag="evaluation", frozen=True, kw_only=True):
    """A copy of the parameters was evaluated (or not: `error`)."""

    at: float
    iteration: int
    """Updates that the evaluated parameters had behind them."""
    rank: int
    """Who evaluated."""
    metrics: dict[str, float] = {}
    """What the program returned."""
    averaged: bool = False
    """Whether the parameters were the moving average."""
    seconds: float = 0.0
    error: str | None = None
    """Why there is no result."""


class Ended(_Line, tag="ended", frozen=True, kw_only=True):
    """The job is over, or stopped to go on later."""

    at: float
    iteration: int
    """Updates made."""
    outcome: str
    """Succeeded | Failed | Suspended."""
    reason: str
    """One CamelCase word, such as Completed or Diverged."""
    message: str = ""
    parameter_digest: str | None = None
    """SHA-256 (hex) of the final moving section."""
    wall_seconds: float = 0.0
    """Since this epoch's training began."""


Line = Header | Gradient | Iteration | Resized | Membership | Resumed | Evaluation | Ended

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Line)


class TraceError(BackupSyncError):
    """A trace that cannot be read."""


class TraceWriter:
    """Appends lines to a file; a torn last line of a killed predecessor is cut off first."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = _open_whole(path)

    def write(self, line: Line) -> None:
        """Append one line."""
        self._file.write(_encoder.encode(line) + b"\n")

    def flush(self) -> None:
        """Hand what was written to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Flush and close."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_trace(path: Path) -> Iterator[Line]:
    """Yield the lines of the trace; a torn last line is left out. Raises TraceError for anything else."""
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                try:
                    yield _decode(raw)
                except (msgspec.MsgspecError, UnicodeDecodeError, TraceError) as error:
                    if not raw.endswith(b"\n"):
                        return
                    raise TraceError(f"{path}:{number}: is no line of a trace: {error}") from error
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error}") from error


def _decode(raw: bytes) -> Line:
    line: Line = _decoder.decode(raw)
    if isinstance(line, Header) and line.trace_version != TRACE_VERSION:
        raise TraceError(f"trace_version is {line.trace_version}, this version reads {TRACE_VERSION}")
    return line


def _open_whole(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+b")
    size = file.seek(0, 2)
    while size:
        file.seek(size - 1)
        if file.read(1) == b"\n":
            break
        size -= 1
    file.truncate(size)
    return file
