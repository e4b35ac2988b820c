"""The one computation of a gradient, shared by session and replay: a pure function of parameters and ticket.

A mini-batch is computed in micro-batches; the loss of each is weighted by its share of the examples, so that
the gradient is the mean over the mini-batch (Chen et al., algorithm 3, line 4). Model modes (train, eval) are
the program's own and stay as they are.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from backupsync.errors import ProgramError
from backupsync_worker.data.batches import MicroBatch
from backupsync_worker.tensors.device import autocast_dtype
from backupsync_worker.tensors.flat_model import FlatModel
from backupsync_worker.tensors.gradient import GradientSummary, OnChunk
from backupsync_worker.tensors.seeding import seed_everything


class Abandon(Exception):  # noqa: N818 -- a decision, not a fault
    """Raised by `check`: the batch is stale, give it up."""


@dataclass(frozen=True)
class Computed(GradientSummary):
    """A gradient that is whole."""

    loss: float
    """Mean over the mini-batch."""
    examples: int


class Accumulation:
    """One gradient in the making, micro-batch by micro-batch.

    Making one discards what was left of the gradient before, puts the buffers back as they were loaded and
    seeds every random number for the ticket. `check` is called at each boundary of micro-batch and chunk and
    may raise `Abandon`; the caller then calls `abandon`.
    """

    def __init__(
        self, flat: FlatModel, seed: int, ticket: int, on_chunk: OnChunk, check: Callable[[], None]
    ) -> None:
        self._flat, self._on_chunk, self._check = flat, on_chunk, check
        self._loss: Tensor | None = None
        self._examples = 0
        self.abandon()
        seed_everything(seed, "compute", ticket)

    def add(self, loss: Tensor, examples: int, weight: float, last: bool) -> None:
        """Run backward of one micro-batch's mean loss times its share `weight`; chunks leave in the `last`.

        Raises ProgramError for a loss that is no differentiable scalar, and whatever `check` raises.
        """
        _require_scalar(loss)
        self._check()
        wide = loss.float() if loss.itemsize < 4 else loss
        weighted = loss if weight == 1.0 else wide * weight
        self._loss = weighted.detach() if self._loss is None else self._loss + weighted.detach()
        self._examples += examples
        if last:
            self._flat.gradient.begin(self._deliver)
        weighted.backward()  # type: ignore[no-untyped-call]

    def finish(self) -> Computed:
        """Hand out the chunks that are left and sum up.

        Raises ProgramError when no trainable parameter got a gradient: training would change nothing.
        """
        summary = self._flat.gradient.finish()
        if len(summary.absent) == len(self._flat.schema.trainable):
            raise ProgramError(
                "loss: depends on no trainable parameter of the attached model; compute it from that model, "
                "not from a copy or from another module"
            )
        loss = float("nan") if self._loss is None else float(self._loss)
        return Computed(summary.norm, summary.finite, summary.absent, loss, self._examples)

    def abandon(self) -> None:
        """Discard partial gradients and what the forward passes did to the buffers."""
        self._flat.gradient.abort()
        self._flat.reset_buffers()

    def _deliver(self, offset: int, chunk: memoryview) -> None:
        self._on_chunk(offset, chunk)
        self._check()


def compute_gradient(
    flat: FlatModel,
    loss_of: Callable[[Any], Tensor],
    micro_batches: Sequence[MicroBatch],
    seed: int,
    ticket: int,
    autocast: str,
    on_chunk: OnChunk,
    check: Callable[[], None],
) -> Computed:
    """Compute the gradient of `ticket` at the model's present parameters, and hand it out in chunks.

    `loss_of` maps a micro-batch's data to its mean loss. The same bits come out whenever parameters, ticket,
    micro-batches, threads and machine are the same. When anything is raised (`Abandon` by `check` too), the
    partial gradient is discarded and model and generators are fit for the next ticket.
    """
    making = Accumulation(flat, seed, ticket, on_chunk, check)
    try:
        for number, micro in enumerate(micro_batches, start=1):
            with autocasting(autocast, flat.device):
                loss = loss_of(micro.data)
            making.add(loss, micro.examples, micro.weight, last=number == len(micro_batches))
        return making.finish()
    except BaseException:
        making.abandon()
        raise


def autocasting(autocast: str, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context of forward and loss. Raises ProgramError where the type cannot be used."""
    dtype = autocast_dtype(autocast, device)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def clip_scale(norm: float, clip_norm: float | None) -> float:
    """Return the factor by which a gradient of this global norm is clipped to `clip_norm`; at most 1."""
    return 1.0 if clip_norm is None or not norm > clip_norm else clip_norm / norm


def _require_scalar(loss: object) -> None:
    if not isinstance(loss, Tensor):
        raise ProgramError(
            f"loss: is a {type(loss).__name__}, must be a tensor: the mean loss over the micro-batch"
        )
    if loss.numel() != 1 or not loss.is_floating_point():
        raise ProgramError(
            f"loss: is {loss.dtype}{list(loss.shape)}, must be one floating-point number: the mean loss"
        )
    if not loss.requires_grad:
        raise ProgramError(
            "loss: does not depend on a trainable parameter; compute it from model(...), outside "
            "torch.no_grad()"
        )
