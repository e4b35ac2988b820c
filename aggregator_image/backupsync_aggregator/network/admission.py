"""Who is let in: pure judgements over what a peer said and what the planner desires."""

from collections.abc import Collection

from backupsync.spec import WireSpec
from backupsync.wire.auth import matches, worker_proof
from backupsync.wire.messages import PROTOCOL, Challenge, Hello, Proof, RefusalCode
from backupsync.wire.schema import Schema, elements
from backupsync_aggregator.network.limits import SEND_LIMIT, largest_message
from backupsync_aggregator.round.events import Member


class Rejected(Exception):  # noqa: N818 -- the protocol's own word
    """What a peer asked or sent is refused; `code` and `detail` go back to it."""

    def __init__(self, code: RefusalCode, detail: str) -> None:
        self.code = code
        self.detail = detail
        self.peer: str | None = None
        """What people call the peer, where only the message says so."""
        super().__init__(f"{code}: {detail}")


def check_hello(hello: Hello, uid: str) -> None:
    """Turn away who speaks another protocol or belongs to another job. Raises Rejected."""
    if hello.protocol != PROTOCOL:
        detail = f"this aggregator speaks protocol {PROTOCOL}, the worker {hello.protocol}: use one version"
        raise Rejected(RefusalCode.PROTOCOL, detail)
    if hello.job != uid:
        raise Rejected(RefusalCode.WRONG_JOB, f"this aggregator serves job {uid}, not {hello.job}")


def check_proof(key: bytes, hello: Hello, challenge: Challenge, proof: Proof) -> None:
    """Turn away who does not hold the job's key. Raises Rejected."""
    if not matches(worker_proof(key, hello, challenge), proof.mac):
        raise Rejected(RefusalCode.WRONG_KEY, "the answer to the challenge was not made with this job's key")


def check_membership(
    hello: Hello, desired: Collection[Member], current: Hello | None, highest_start: int
) -> None:
    """Turn away pairs that the planner did not mint, and second processes of one. Raises Rejected.

    `current` is the HELLO of the connection that speaks for the pair now. The same incarnation is a
    reconnect and takes over; another one needs a higher start, since it can only be a restart in place.
    """
    member = Member(hello.rank, hello.attempt)
    if member not in desired:
        attempts = sorted(m.attempt for m in desired if m.rank == hello.rank)
        known = f"its attempts are {attempts}" if attempts else "the rank is not in the job"
        detail = f"rank {hello.rank} attempt {hello.attempt} is not desired: {known}"
        raise Rejected(RefusalCode.NOT_A_MEMBER, detail)
    if hello.start < highest_start:
        detail = f"start {highest_start} of rank {hello.rank} attempt {hello.attempt} has joined already"
        raise Rejected(RefusalCode.DUPLICATE, f"{detail}, start {hello.start} is over")
    if current is None or current.incarnation == hello.incarnation or hello.start > current.start:
        return
    detail = f"another live process speaks for rank {hello.rank} attempt {hello.attempt}"
    raise Rejected(RefusalCode.DUPLICATE, detail)


def check_model(hello: Hello, proof: Proof, wire: WireSpec) -> Schema:
    """Return the peer's model, if it can be trained over this wire at all. Raises Rejected."""
    schema = Schema(proof.schema)
    if schema.hash != hello.schema_hash:
        raise Rejected(RefusalCode.MALFORMED, "the schema of PROOF is not the one hashed in HELLO")
    if len({e.name for e in schema.entries}) != len(schema.entries):
        raise Rejected(RefusalCode.MALFORMED, "two tensors of the schema have the same name")
    if not any(elements(e) for e in schema.trainable):
        raise Rejected(RefusalCode.UNSUPPORTED, "the model has no trainable parameters")
    _check_size(schema, wire)
    return schema


def check_same_model(job: Schema, peer: Schema, rank: int) -> None:
    """Turn away a peer whose model is not the job's. Raises Rejected."""
    if job.hash != peer.hash:
        detail = f"the model of rank {rank} differs from the job's: {job.difference(peer)}"
        raise Rejected(RefusalCode.SCHEMA, detail[:4096])


def _check_size(schema: Schema, wire: WireSpec) -> None:
    total = sum(schema.section_bytes(s) for s in (schema.moving, schema.moving, schema.frozen))
    if total > SEND_LIMIT * wire.chunk_bytes // 2:
        detail = (
            f"the parameters ({total} bytes) need too many chunks of chunkBytes {wire.chunk_bytes}: raise it"
        )
        raise Rejected(RefusalCode.UNSUPPORTED, detail)
    buffers, limit = schema.section_bytes(schema.buffer_section), largest_message(wire.chunk_bytes)
    if buffers > limit:
        detail = f"the buffers ({buffers} bytes) exceed one message ({limit} bytes): raise chunkBytes"
        raise Rejected(RefusalCode.UNSUPPORTED, detail)
