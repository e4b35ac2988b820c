"""Gradients on their way in: one reusable flat array per live member, kept until it is applied or dropped."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from backupsync.spec import WireSpec
from backupsync.wire.frames import Buffer
from backupsync.wire.messages import Chunk, Commit, RefusalCode
from backupsync.wire.schema import ITEM_BYTES, Schema
from backupsync_aggregator.network.admission import Rejected
from backupsync_aggregator.network.assembly import Assembly
from backupsync_aggregator.round.events import Member

_SPARE_LIMIT = 4
"""Arrays kept for members to come, beyond those in use."""


@dataclass(slots=True)
class Inbox:
    """One gradient, as far as it has come."""

    assembly: Assembly
    flat: torch.Tensor
    """The assembly's bytes as a 1-D tensor of the wire dtype."""
    iteration: int = -1
    ticket: int = -1
    finite: bool = True
    accepted: bool = False
    """Its fate is told: it stays until it is averaged."""
    absent: tuple[int, ...] = ()
    metrics: dict[str, float] = field(default_factory=dict)
    buffers: bytes | None = field(default=None)


class Gradients:
    """Every gradient of the job that is arriving, or that waits to be averaged.

    `sound_buffers` says whether the buffers that came with one may enter a mean (`ModelState.sound_buffers`).
    """

    def __init__(self, schema: Schema, wire: WireSpec, sound_buffers: Callable[[Buffer], bool]) -> None:
        self.discarded = 0
        """Chunks that nobody asked for (any longer)."""
        self._schema = schema
        self._sound_buffers = sound_buffers
        self._dtype: torch.dtype = getattr(torch, wire.dtype.value)
        self._chunk_bytes = wire.chunk_bytes
        self._bytes = schema.gradient_elements * ITEM_BYTES[wire.dtype.value]
        self._buffer_bytes = schema.section_bytes(schema.buffer_section)
        self._receiving: dict[Member, Inbox] = {}
        self._held: dict[tuple[Member, int], Inbox] = {}
        self._spare: list[Inbox] = []

    @property
    def largest_payload(self) -> int:
        """Bytes that one message of a member may carry."""
        return max(self._chunk_bytes, self._buffer_bytes)

    def expect(self, member: Member, iteration: int, ticket: int) -> None:
        """From now on take the chunks of this ticket from this member, and of no other."""
        inbox = self._receiving.get(member) or self._take()
        self._clean(inbox)
        inbox.iteration, inbox.ticket = iteration, ticket
        self._receiving[member] = inbox

    def put(self, member: Member, chunk: Chunk, payload: Buffer | None) -> None:
        """Take one chunk; one that was not asked for is discarded. Raises Rejected for a malformed one."""
        if payload is None:
            raise Rejected(RefusalCode.MALFORMED, "a chunk without bytes")
        inbox = self._receiving.get(member)
        if inbox is None or (inbox.iteration, inbox.ticket) != (chunk.iteration, chunk.ticket):
            self.discarded += 1
            return
        place = inbox.assembly.put(chunk.offset, payload)
        if inbox.finite:
            item = inbox.flat.element_size()
            begin = chunk.offset // item
            inbox.finite = all_finite(inbox.flat[begin : begin + len(place) // item])

    def commit(self, member: Member, commit: Commit, payload: Buffer | None) -> tuple[bool, bool]:
        """Close the member's gradient and hold it; return (whole, finite). Raises Rejected when malformed.

        A commit of another ticket than the expected one is not whole: there is nothing it could close.
        """
        inbox = self._receiving.get(member)
        if inbox is None or (inbox.iteration, inbox.ticket) != (commit.iteration, commit.ticket):
            return False, True
        self._check_commit(commit, payload)
        inbox.absent, inbox.metrics = commit.absent, commit.metrics
        inbox.buffers = None if payload is None else bytes(payload)
        sound = inbox.buffers is None or self._sound_buffers(inbox.buffers)
        del self._receiving[member]
        self._held[member, commit.ticket] = inbox
        return inbox.assembly.whole, inbox.finite and sound

    def held(self, member: Member, ticket: int) -> Inbox:
        """Return a committed gradient."""
        return self._held[member, ticket]

    def keep(self, member: Member, ticket: int) -> None:
        """Hold a committed gradient until it is averaged, whatever else is told about its ticket."""
        if inbox := self._held.get((member, ticket)):
            inbox.accepted = True

    def drop(self, member: Member, ticket: int) -> None:
        """Forget a committed gradient, unless it was accepted before."""
        inbox = self._held.get((member, ticket))
        if inbox is not None and not inbox.accepted:
            self.release(member, ticket)

    def release(self, member: Member, ticket: int) -> None:
        """Forget a gradient that has been averaged; its memory serves the next."""
        if inbox := self._held.pop((member, ticket), None):
            self._give_back(inbox)

    def abandon(self, member: Member, iteration: int, ticket: int) -> None:
        """Forget what the member has sent of this ticket."""
        inbox = self._receiving.get(member)
        if inbox is not None and (inbox.iteration, inbox.ticket) == (iteration, ticket):
            self.leave(member)

    def leave(self, member: Member) -> None:
        """Forget what the member was sending; what it committed stays until its fate is told."""
        if inbox := self._receiving.pop(member, None):
            self._give_back(inbox)

    def _check_commit(self, commit: Commit, payload: Buffer | None) -> None:
        trainable = len(self._schema.trainable)
        if any(index >= trainable for index in commit.absent):
            raise Rejected(
                RefusalCode.MALFORMED, f"absent names a tensor beyond the {trainable} trainable ones"
            )
        size = 0 if payload is None else len(payload)
        if size != self._buffer_bytes:
            detail = f"the buffers have {size} bytes, the model's have {self._buffer_bytes}"
            raise Rejected(RefusalCode.MALFORMED, detail)

    def _take(self) -> Inbox:
        if self._spare:
            return self._spare.pop()
        assembly = Assembly(self._bytes, self._chunk_bytes)
        return Inbox(assembly, torch.frombuffer(assembly.data, dtype=self._dtype))

    def _give_back(self, inbox: Inbox) -> None:
        if len(self._spare) < _SPARE_LIMIT + len(self._receiving):
            self._spare.append(inbox)

    @staticmethod
    def _clean(inbox: Inbox) -> None:
        inbox.assembly.clear()
        inbox.finite, inbox.accepted = True, False
        inbox.buffers = None


def all_finite(values: torch.Tensor) -> bool:
    """Whether no element is NaN or infinite.

    NaN and infinity survive a sum, so a finite sum proves it in one cheap pass; the exact look is needed
    only when the sum itself is not finite, which huge but finite values can also cause.
    """
    if bool(torch.isfinite(values.sum(dtype=torch.float32))):
        return True
    return bool(torch.isfinite(values).all())
