"""One ticket in the making: from the assignment to COMMIT, or to giving it up."""

import math
from typing import Any

from torch import Tensor

from backupsync.errors import ProgramError
from backupsync.inject import InjectedStep
from backupsync.spec import JobSpec
from backupsync.wire.messages import Abandoned, Assign, Chunk, Commit
from backupsync_worker.connection.link import ConnectionLost
from backupsync_worker.connection.membership import Membership
from backupsync_worker.data.batches import MicroBatch
from backupsync_worker.pacing import hold_after_backward, hold_before_backward
from backupsync_worker.signals import Stopped
from backupsync_worker.tensors.compute import Abandon, Accumulation, Computed, clip_scale
from backupsync_worker.tensors.flat_model import FlatModel
from backupsync_worker.timing import Stopwatch


class Work:
    """Computes the gradient of one assignment and sends it, chunk by chunk.

    Looks at what the aggregator says at every boundary of chunk and micro-batch, and gives up what has become
    pointless: a stale batch (unless it runs to the end), or any when this worker is to leave.
    """

    def __init__(
        self, member: Membership, spec: JobSpec, attempt: int, assign: Assign, injected: InjectedStep | None
    ) -> None:
        self.assign = assign
        self.over = False
        """Pushed whole, or given up."""
        self.watch = Stopwatch()
        self.batches: list[MicroBatch] | None = None
        """The mini-batch; None while the program has not asked for it."""
        self._member, self._attempt, self._injected = member, attempt, injected
        self._training = spec.training
        self._making: Accumulation | None = None
        self._taken = self._pushed = 0

    @property
    def count(self) -> int:
        """Micro-batches of the mini-batch."""
        return self._training.accumulate if self.batches is None else len(self.batches)

    @property
    def pushed(self) -> int:
        """Micro-batches pushed so far."""
        return self._pushed

    def begin(self, flat: FlatModel) -> None:
        """Make the model and the random numbers ready for this ticket's first forward pass."""
        self._flat = flat
        self._making = Accumulation(
            flat, self._training.seed, self.assign.ticket, self._send_chunk, self.check
        )
        self._member.enter("compute")

    def take(self) -> Any:
        """Return the next micro-batch's data. Raises ProgramError when there is none left."""
        assert self.batches is not None
        if self._taken >= len(self.batches):
            raise ProgramError(
                f"batch() was called {self._taken + 1} times for a mini-batch of {len(self.batches)} "
                "micro-batches: call it once in each pass of the loop"
            )
        self._taken += 1
        return self.batches[self._taken - 1].data

    def check(self) -> None:
        """Look at what the aggregator says. Raises Abandon, Stopped, ConnectionLost, errors.Refused."""
        self._member.check_stop()
        self._member.pump()
        if self._member.inbox.leave is not None or self._member.inbox.is_stale(self.assign):
            raise Abandon

    def push(self, loss: Tensor, metrics: dict[str, float]) -> bool:
        """Run backward, and send; return whether the gradient is whole and `metrics` went with it."""
        try:
            return self._push(loss, metrics)
        except Abandon:
            self._abandon()
        except Stopped:
            self._discard()
        except ConnectionLost as error:
            self._discard()
            self._member.lose(error)
        except BaseException:
            self._discard()
            raise
        return False

    def _push(self, loss: Tensor, metrics: dict[str, float]) -> bool:
        assert self._making is not None, "begin() comes first"
        self._pushed += 1
        last = self._pushed == self.count
        if last:
            hold_before_backward(self._injected, self.watch, self._member.wait, self.check)
        if self.batches is None:
            examples = self._training.batch_size // self.count
            self._making.add(loss, examples, 1 / self.count, last)
        else:
            micro = self.batches[self._pushed - 1]
            self._making.add(loss, micro.examples, micro.weight, last)
        if not last:
            return False
        hold_after_backward(self._injected, self.watch, self._member.wait, self.check)
        computed = self._making.finish()
        self._member.enter("push")
        self._commit(computed, metrics)
        return True

    def _send_chunk(self, offset: int, data: memoryview) -> None:
        with self.watch.measure("push"):
            self._member.send(Chunk(self.assign.iteration, self.assign.ticket, 0, offset), data)

    def _commit(self, computed: Computed, metrics: dict[str, float]) -> None:
        buffers = self._flat.buffers()
        timing = self.watch.timing()
        commit = Commit(
            epoch=self.assign.epoch,
            attempt=self._attempt,
            iteration=self.assign.iteration,
            ticket=self.assign.ticket,
            scale=clip_scale(computed.norm, self._training.clip_norm),
            examples=computed.examples,
            finite=computed.finite and math.isfinite(computed.loss),
            norm=computed.norm,
            loss=computed.loss,
            absent=computed.absent,
            timing=timing,
            metrics=metrics,
        )
        self._member.send(commit, buffers)
        self.over = True
        self._member.computed(timing)

    def _abandon(self) -> None:
        """Give the ticket up, and say so unless everything ends anyway."""
        self._discard()
        if self._member.inbox.leave is not None:
            return
        try:
            self._member.send(Abandoned(self.assign.iteration, self.assign.ticket, self.watch.timing()))
        except ConnectionLost as error:
            self._member.lose(error)

    def _discard(self) -> None:
        self.over = True
        if self._making is not None:
            self._making.abandon()
