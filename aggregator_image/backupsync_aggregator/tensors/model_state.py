"""The state of a training job: parameters, optimizer, average, buffers; one `apply` for each update.

Aggregator and replay both call `ModelState.initial`, `apply` and `digest`, and get the same bits. The
optimizer steps float32 masters (float64 for float64 tensors); what is published is rounded to the model's own
dtypes.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from backupsync.errors import BackupSyncError
from backupsync.spec import JobSpec
from backupsync.wire.frames import Buffer
from backupsync.wire.schema import FLOATING, Schema, Slot
from backupsync_aggregator.tensors.averaging import BufferMean, GradientMean, WeightedGradient
from backupsync_aggregator.tensors.optimizer import assign_groups, build
from backupsync_aggregator.tensors.optimizer_state import Scalar, Scalars, restore_state, state_of
from backupsync_aggregator.tensors.schedule import LearningRate, Rates
from backupsync_aggregator.tensors.sections import MasterStore, Recycler, copy_in, read_only, slot_view
from backupsync_aggregator.tensors.validation import check_training

__all__ = ["Applied", "ModelState", "WeightedGradient"]


@dataclass(frozen=True, slots=True)
class Applied:
    """What one update did."""

    learning_rate: float
    """Of the parameters that no group's pattern matches, as the optimizer used it."""
    gradient_norm: float
    """Global 2-norm of the averaged gradient."""
    examples: int
    """Examples it averaged over."""


class ModelState:
    """Everything an update changes. Made by `initial`, or by a checkpoint through `restored`."""

    def __init__(self, schema: Schema, spec: JobSpec, moving: Buffer, frozen: Buffer) -> None:
        check_training(spec.training, schema)
        self.schema = schema
        self.spec = spec
        self.updates = 0
        self._split = schema.section_bytes(schema.moving[: len(schema.trainable)])
        self._frozen = copy_in(frozen)
        given = copy_in(moving)
        self._buffers = _repacked(given, schema)
        self.masters = self._store()
        self.masters.load(given)
        self.average = self._store() if spec.training.ema_decay is not None else None
        if self.average is not None:
            self.average.copy_from(self.masters)
        self._mean = GradientMean(schema)
        self._buffer_mean = BufferMean(schema)
        groups = assign_groups(spec.training.optimizer, schema.trainable)
        self._optimizer = build(spec.training.optimizer, groups, self.masters.views)
        self._rate = LearningRate(spec.training, spec.reference_workers)
        self._memory = Recycler(self._split + self._buffers.numel())
        self._published = self._publish(self.masters)

    @classmethod
    def initial(cls, schema: Schema, spec: JobSpec, moving: Buffer, frozen: Buffer) -> "ModelState":
        """Start from a model's own initial values: its `moving` and `frozen` sections.

        Raises ManifestError for an optimizer, group or schedule that does not fit, BackupSyncError for
        sections of another size.
        """
        for name, data, slots in (("moving", moving, schema.moving), ("frozen", frozen, schema.frozen)):
            found, wanted = memoryview(data).nbytes, schema.section_bytes(slots)
            if found != wanted:
                raise BackupSyncError(f"initial state: section {name} has {found} bytes, must have {wanted}")
        return cls(schema, spec, moving, frozen)

    @property
    def averaged(self) -> bool:
        """Whether an exponential moving average is kept."""
        return self.average is not None

    def published(self) -> memoryview:
        """Return the current parameters and buffers: the `moving` section, never written to again."""
        return self._published

    def frozen_section(self) -> memoryview:
        """Return the `frozen` section."""
        return read_only(self._frozen)

    def evaluation_section(self) -> memoryview:
        """Return the `moving` section to evaluate: the average where one is kept, and the current buffers."""
        return self._published if self.average is None else self._publish(self.average)

    def digest(self) -> str:
        """Return the SHA-256 (hex) of `published()`."""
        return hashlib.sha256(self._published).hexdigest()

    def apply(self, gradients: Sequence[WeightedGradient], examples_before: int) -> Applied:
        """Average `gradients` (in order of place), take one optimizer step, publish.

        `examples_before`: examples applied before this update; the learning rate follows them. Raises
        ValueError, before anything has changed, for gradients of another model.
        """
        mean = self._mean.take(gradients)
        self._buffer_mean.take(gradients, self._buffers)
        rates = self._rate.at(examples_before, len(gradients))
        self._step(mean, rates)
        if self.average is not None:
            self.average.lerp_(self.masters, 1 - self._decay())
        self.updates += 1
        self._published = self._publish(self.masters)
        norm = float(torch.linalg.vector_norm(self._mean.flat))
        return Applied(rates.base, norm, sum(gradient.examples for gradient in gradients))

    def sound_buffers(self, data: Buffer) -> bool:
        """Whether the floating buffers (bytes of `Schema.buffer_section`) may enter a mean.

        They may when every element is finite, or is what the job's buffer holds there already: a constant
        mask of -inf is no fault of the gradient it came with.
        """
        theirs = copy_in(data)
        return all(
            _sound(slot_view(theirs, slot), slot_view(self._buffers, slot))
            for slot in self.schema.buffer_section
            if slot.entry.dtype in FLOATING
        )

    def optimizer_state(self) -> tuple[dict[str, torch.Tensor], dict[str, dict[str, Scalar]]]:
        """Return the optimizer's state (see `state_of`), for a checkpoint."""
        return state_of(self._optimizer, self.masters.views)

    def restore(
        self,
        updates: int,
        named: Mapping[str, torch.Tensor],
        scalars: Scalars,
    ) -> None:
        """Put back the count of updates and the optimizer's state, and publish the masters as they are now.

        Raises CheckpointError when the optimizer as it is specified needs another state.
        """
        self._set(self._rate.at(0, 1))  # a schedule of momentum decides what state there is
        restore_state(self._optimizer, self.masters.views, named, scalars)
        self.updates = updates
        self._published = self._publish(self.masters)

    def buffer_tensors(self) -> list[torch.Tensor]:
        """Return the buffers, by position, as views into the state."""
        return [slot_view(self._buffers, slot) for slot in self.schema.buffer_section]

    def frozen_tensors(self) -> list[torch.Tensor]:
        """Return the frozen tensors, by position, as views into the state."""
        return [slot_view(self._frozen, slot) for slot in self.schema.frozen]

    def _step(self, mean: Sequence[torch.Tensor | None], rates: Rates) -> None:
        for view, gradient in zip(self.masters.views, mean, strict=True):
            # No gradient for a tensor without elements: some optimizers divide by their number.
            view.grad = gradient.to(view.dtype) if gradient is not None and view.numel() else None
        self._set(rates)
        self._optimizer.step()

    def _set(self, rates: Rates) -> None:
        for group, values in zip(self._optimizer.param_groups, rates.groups, strict=True):
            group.update(values)

    def _decay(self) -> float:
        """Decay of the average, small at first: min(d, (1+t)/(10+t)) after t updates."""
        decay = self.spec.training.ema_decay or 0.0
        return min(decay, (1 + self.updates) / (10 + self.updates))

    def _publish(self, store: MasterStore) -> memoryview:
        section = self._memory.take()
        store.store(section)
        section[self._split :] = self._buffers
        return self._memory.publish(section)

    def _store(self) -> MasterStore:
        return MasterStore(self._trainable_slots(), self._split)

    def _trainable_slots(self) -> tuple[Slot, ...]:
        return self.schema.moving[: len(self.schema.trainable)]


def _sound(new: torch.Tensor, old: torch.Tensor) -> bool:
    return bool((new.isfinite() | (new == old) | (new.isnan() & old.isnan())).all())


def _repacked(moving: torch.Tensor, schema: Schema) -> torch.Tensor:
    """Return the buffers of a moving section as a section of their own, with zeros between them."""
    section = torch.zeros(schema.section_bytes(schema.buffer_section), dtype=torch.uint8)
    for theirs, ours in zip(schema.moving[len(schema.trainable) :], schema.buffer_section, strict=True):
        section[ours.offset : ours.offset + ours.size] = moving[theirs.offset : theirs.offset + theirs.size]
    return section
