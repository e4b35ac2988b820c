"""Every message of the wire, as a tagged struct: the header of a frame sequence. Protocol version 1.

A message is a header (this module, msgpack) followed by zero or one payload frame of raw tensor bytes.
Nothing on this wire is ever unpickled.
"""

from enum import StrEnum
from typing import Annotated, Literal

from msgspec import Meta, Struct

PROTOCOL = 1

Index = Annotated[int, Meta(ge=0, le=2**62)]
Rank = Annotated[int, Meta(ge=0, lt=2000)]
Short = Annotated[str, Meta(max_length=512)]
Detail = Annotated[str, Meta(max_length=4096)]
Nonce = Annotated[bytes, Meta(min_length=32, max_length=32)]
Mac = Annotated[bytes, Meta(min_length=32, max_length=32)]
Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]


class _Message(Struct, frozen=True, tag_field="op", forbid_unknown_fields=True):
    """Common base: the `op` field names the message."""


class RefusalCode(StrEnum):
    """Why the aggregator refuses a peer, a message or a gradient; closed, each with one meaning."""

    PROTOCOL = "protocol"
    """The peer speaks another protocol version."""
    MALFORMED = "malformed"
    """The frames are not a message of this protocol, or out of bounds."""
    WRONG_JOB = "wrong-job"
    """The peer belongs to another job."""
    WRONG_KEY = "wrong-key"
    """The peer does not hold the job's key."""
    NOT_A_MEMBER = "not-a-member"
    """(rank, attempt) is not in the desired state: replaced, scaled away, or never minted."""
    DUPLICATE = "duplicate"
    """Another live process already speaks for this (rank, attempt)."""
    SCHEMA = "schema"
    """The peer's model has other tensors than the job's."""
    NOT_JOINED = "not-joined"
    """The peer has not completed the join."""
    UNSUPPORTED = "unsupported"
    """The model cannot be trained here (no trainable parameters, too large a message, ...)."""


class Outcome(StrEnum):
    """What became of a gradient."""

    ACCEPTED = "accepted"
    DROPPED = "dropped"
    REFUSED = "refused"


class Reason(StrEnum):
    """Why a gradient was dropped or refused."""

    LATE = "late"
    """The iteration already had its N."""
    ABANDONED = "abandoned"
    """The worker stopped computing it once it was late."""
    STALE = "stale"
    """Async: older than maxStaleness."""
    NOT_LIVE = "not-live"
    """The pair was replaced, lost or fenced before it committed."""
    DUPLICATE_RANK = "duplicate-rank"
    """The rank already has one accepted in this iteration."""
    UNASKED = "unasked"
    """No such (iteration, ticket) was handed to this worker."""
    NOT_FINITE = "not-finite"
    """It holds NaN or infinity."""
    INCOMPLETE = "incomplete"
    """Chunks are missing."""
    MALFORMED = "malformed"
    """The commit contradicts itself (no examples, negative scale, ...)."""
    ENDED = "ended"
    """The job ended before it came."""


# ---- worker to aggregator ------------------------------------------------------------------------------


class Hello(_Message, tag="hello", frozen=True):
    """First word of a connection."""

    job: Short
    """uid of the job."""
    rank: Rank
    attempt: Index
    start: Index
    """How often this attempt's process was started before (container restarts in place)."""
    incarnation: Nonce
    """Random, one per process: tells a reconnect from a second process."""
    protocol: int
    schema_hash: Digest
    nonce: Nonce


class TensorEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """One tensor of the model."""

    name: Short
    """Canonical name, as `named_parameters` gives it."""
    dtype: Literal[
        "float64", "float32", "bfloat16", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"
    ]
    shape: Annotated[tuple[Index, ...], Meta(max_length=16)]
    role: Literal["trainable", "frozen", "buffer"]
    aliases: tuple[Short, ...] = ()
    """Further state_dict names of the same storage (tied weights)."""


class Proof(_Message, tag="proof", frozen=True):
    """Answer to the challenge: the job's key is held; and the model's tensors, in order."""

    mac: Mac
    schema: Annotated[tuple[TensorEntry, ...], Meta(max_length=100_000)]


class Initial(_Message, tag="initial", frozen=True):
    """One chunk of a worker's own initial state (payload: bytes of `section` from `offset`)."""

    section: Literal["moving", "frozen"]
    offset: Index


class InitialDone(_Message, tag="initial-done", frozen=True):
    """Every chunk of the initial state has been sent."""

    digest: Digest
    """SHA-256 over moving, then frozen bytes."""
    batches_per_epoch: Index | None
    """Mini-batches of one pass over the data; None where the data has no length."""


class Ready(_Message, tag="ready", frozen=True):
    """The worker can compute; idempotent, repeated on a timer."""

    holds: int
    """Iteration of the parameters it holds in full, -1 for none."""
    batches_per_epoch: Index | None = None


class Chunk(_Message, tag="chunk", frozen=True):
    """Part of a gradient (payload: bytes from `offset` of the flat gradient in the wire dtype)."""

    iteration: Index
    ticket: Index
    shard: Annotated[int, Meta(ge=0, le=0)]
    offset: Index


class Timing(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a worker's time went for one gradient, in seconds by its own clock."""

    compute: float = 0.0
    """Forward and backward, injected slowness included."""
    data: float = 0.0
    """Waiting for the mini-batch."""
    push: float = 0.0
    """Sending."""
    cpu: float = 0.0
    """CPU time of the process."""
    run_queue: float = 0.0
    """Runnable but waiting for a CPU (/proc/self/schedstat); 0 where unknown."""
    throttled: float = 0.0
    """Throttled by its CFS quota; 0 where unknown."""
    injected: float = 0.0
    """Step time asked for by the injection profile; 0 without one."""


class Commit(_Message, tag="commit", frozen=True):
    """The gradient is whole (payload: buffer bytes, when the model has buffers)."""

    epoch: Index
    attempt: Index
    iteration: Index
    ticket: Index
    scale: float
    """Factor of clipping by global norm, at most 1."""
    examples: Index
    finite: bool
    norm: float
    """Global norm before clipping."""
    loss: float
    absent: Annotated[tuple[Index, ...], Meta(max_length=100_000)] = ()
    """Indices (among the trainable tensors) whose gradient is None."""
    timing: Timing = Timing()
    metrics: Annotated[dict[Short, float], Meta(max_length=64)] = {}
    """What the program logged."""


class Abandoned(_Message, tag="abandoned", frozen=True):
    """A stale batch was given up before it was whole."""

    iteration: Index
    ticket: Index
    timing: Timing = Timing()


class Exhausted(_Message, tag="exhausted", frozen=True):
    """The worker's data has no batch for this ticket, nor for any later one."""

    iteration: Index
    ticket: Index


class Evaluated(_Message, tag="evaluated", frozen=True):
    """Result of an evaluation; `error` is set instead when it failed or was aborted."""

    iteration: Index
    metrics: Annotated[dict[Short, float], Meta(max_length=64)] = {}
    seconds: float = 0.0
    error: Detail | None = None


class Heartbeat(_Message, tag="heartbeat", frozen=True):
    """The working process lives."""

    progress: Index
    """Grows whenever the working thread passes a boundary (bucket, micro-batch, wait)."""
    phase: Short
    """starting | waiting | data | compute | push | evaluate."""


class Goodbye(_Message, tag="goodbye", frozen=True):
    """The worker leaves on its own accord."""

    reason: Short


# ---- aggregator to worker ------------------------------------------------------------------------------


class Challenge(_Message, tag="challenge", frozen=True):
    """Prove that you hold the job's key."""

    nonce: Nonce
    epoch: Index


class Welcome(_Message, tag="welcome", frozen=True):
    """The peer is a member now; `mac` proves that the aggregator holds the key too."""

    mac: Mac
    epoch: Index
    iteration: Index
    send_initial: bool
    """The job has no parameters yet: send yours."""


class Refused(_Message, tag="refused", frozen=True):
    """The peer is not let in, or spoke out of turn."""

    code: RefusalCode
    detail: Detail


class Parameters(_Message, tag="parameters", frozen=True):
    """Part of the parameters (payload: bytes of `section` from `offset`)."""

    epoch: Index
    iteration: Index
    section: Literal["moving", "frozen", "ema"]
    offset: Index
    total: Index
    """Bytes of the whole section: the section is complete when they have all come."""


class Assign(_Message, tag="assign", frozen=True):
    """Compute the gradient of this ticket on the parameters of this iteration."""

    epoch: Index
    iteration: Index
    ticket: Index
    next_ticket: Index | None
    """The worker's next ticket, for prefetching; a hint."""
    to_the_end: bool
    """Run to the end even when late (an uncensored sample of the compute time)."""


class Verdict(_Message, tag="verdict", frozen=True):
    """What became of the gradient."""

    iteration: Index
    ticket: Index
    outcome: Outcome
    place: Index | None = None
    """Order of acceptance in its iteration, from 0."""
    reason: Reason | None = None


class Stale(_Message, tag="stale", frozen=True):
    """The iteration you are computing has its N."""

    iteration: Index


class Evaluate(_Message, tag="evaluate", frozen=True):
    """Evaluate a copy of the parameters just sent (section ema, or moving when there is no average)."""

    iteration: Index
    averaged: bool


class AbortEvaluation(_Message, tag="abort-evaluation", frozen=True):
    """Stop evaluating: the slack is needed, or the deadline passed."""

    iteration: Index


class Leave(_Message, tag="leave", frozen=True):
    """End the process: the job is over, suspended, or this member is replaced or restarted."""

    why: Literal["succeeded", "failed", "suspended", "fenced", "restart", "scaled"]
    detail: Detail = ""


FromWorker = (
    Hello
    | Proof
    | Initial
    | InitialDone
    | Ready
    | Chunk
    | Commit
    | Abandoned
    | Exhausted
    | Evaluated
    | Heartbeat
    | Goodbye
)
FromAggregator = (
    Challenge | Welcome | Refused | Parameters | Assign | Verdict | Stale | Evaluate | AbortEvaluation | Leave
)
