"""What the aggregator has said on one connection, sorted: parameters put together, tickets, verdicts, orders.

Pure: messages in, state to look at. Whatever is of another epoch, repeated or out of order is left out.
"""

from typing import Literal

from backupsync.wire.frames import Buffer
from backupsync.wire.messages import (
    AbortEvaluation,
    Assign,
    Evaluate,
    FromAggregator,
    Leave,
    Parameters,
    Refused,
    Stale,
    Verdict,
)

SectionName = Literal["moving", "frozen", "ema"]


class Section:
    """One flat section on its way in; whole once every byte of one iteration has come, in order."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._data: Buffer = b""
        self._filled = 0
        self._arriving = -1
        self.iteration = -1
        """Iteration of the whole section held, -1 for none."""

    def take(self, message: Parameters, payload: Buffer) -> None:
        """Add a chunk; one that cannot belong to what is arriving is ignored."""
        if message.total != self._expected or message.offset + len(payload) > message.total:
            return
        if message.offset == 0:
            self._begin(message.iteration)
        if message.iteration != self._arriving or message.offset != self._filled:
            return
        if len(payload) == message.total:
            self._data = payload  # the whole section in one frame: nothing to copy
        else:
            if message.offset == 0:
                self._data = bytearray(message.total)
            assert isinstance(self._data, bytearray)
            self._data[self._filled : self._filled + len(payload)] = payload
        self._filled += len(payload)
        if self._filled == message.total:
            self.iteration, self._arriving = message.iteration, -1

    def bytes_of(self, iteration: int) -> Buffer | None:
        """Return the section of `iteration` if it is here in whole."""
        return self._data if self.iteration == iteration and iteration >= 0 else None

    def _begin(self, iteration: int) -> None:
        self.iteration = -1
        self._arriving, self._filled = iteration, 0


class Inbox:
    """Everything said on one connection, under one epoch."""

    def __init__(self, epoch: int, moving_bytes: int, frozen_bytes: int) -> None:
        self._epoch = epoch
        self._sections = {
            "moving": Section(moving_bytes),
            "frozen": Section(frozen_bytes),
            "ema": Section(moving_bytes),
        }
        self._handled: tuple[int, int] | None = None
        self._stale = -1
        self.assign: Assign | None = None
        """The ticket to compute next."""
        self.evaluate: Evaluate | None = None
        self.aborted = -1
        """Newest iteration whose evaluation was called off."""
        self.leave: Leave | None = None
        self.refused: Refused | None = None
        self.verdicts: list[Verdict] = []

    @property
    def holds(self) -> int:
        """Iteration of the parameters held in whole, -1 for none."""
        return self._sections["moving"].iteration

    def section(self, name: SectionName, iteration: int) -> Buffer | None:
        """Return the bytes of section `name` of `iteration`, or None while they are not all here."""
        return self._sections[name].bytes_of(iteration)

    def frozen(self) -> Buffer | None:
        """Return the frozen section, of whatever iteration it came with, or None."""
        section = self._sections["frozen"]
        return section.bytes_of(section.iteration)

    def take(self, message: FromAggregator, payload: Buffer | None) -> None:
        """Sort one message in."""
        match message:
            case Parameters() if message.epoch == self._epoch:
                self._sections[message.section].take(message, payload if payload is not None else b"")
            case Assign() if message.epoch == self._epoch:
                if (message.iteration, message.ticket) != self._handled:
                    self.assign = message
            case Stale():
                self._stale = max(self._stale, message.iteration)
            case Verdict():
                self.verdicts.append(message)
            case Evaluate():
                self.evaluate = message
            case AbortEvaluation():
                self.aborted = max(self.aborted, message.iteration)
                if self.evaluate is not None and self.evaluate.iteration <= self.aborted:
                    self.evaluate = None
            case Leave():
                self.leave = message
            case Refused():
                self.refused = message
            case _:  # a late part of the join, or another epoch
                pass

    def begin(self) -> Assign:
        """Take the assignment, to work on it: the same ticket is not done twice."""
        assign, self.assign = self.assign, None
        assert assign is not None
        self._handled = (assign.iteration, assign.ticket)
        return assign

    def is_stale(self, assign: Assign) -> bool:
        """Say whether the gradient of `assign` can only come late."""
        return assign.iteration <= self._stale and not assign.to_the_end
