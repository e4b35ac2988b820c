"""A job's state as named tensors and one JSON document, and back, to the last bit."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import torch

from backupsync import __version__
from backupsync.errors import CheckpointError
from backupsync.spec import JobSpec
from backupsync.wire.messages import TensorEntry
from backupsync.wire.schema import Schema
from backupsync_aggregator.tensors.model_state import ModelState

FORMAT: Final = 1


def tensors_of(state: ModelState) -> dict[str, torch.Tensor]:
    """Return every tensor of the state by name: `ROLE.NAME`, and `optimizer.POSITION.KEY`."""
    schema = state.schema
    named, _ = state.optimizer_state()
    averages = state.average.views if state.average else []
    frozen = [slot.entry for slot in schema.frozen]
    return (
        _named("trainable", schema.trainable, state.masters.views)
        | _named("average", schema.trainable if averages else (), averages)
        | _named("buffer", schema.buffers, state.buffer_tensors())
        | _named("frozen", frozen, state.frozen_tensors())
        | {f"optimizer.{name}": tensor for name, tensor in named.items()}
    )


def describe(state: ModelState) -> dict[str, Any]:
    """Return what is not a tensor, ready for JSON."""
    _, scalars = state.optimizer_state()
    return {
        "format": FORMAT,
        "backupsync": __version__,
        "optimizer": state.spec.training.optimizer.name,
        "reference_workers": state.spec.reference_workers,
        "updates": state.updates,
        "schema_hash": state.schema.hash.hex(),
        "schema": msgspec.to_builtins(state.schema.entries),
        "optimizer_scalars": scalars,
    }


def restore(
    spec: JobSpec, document: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], schema: Schema | None
) -> ModelState:
    """Return the state that `describe` and `tensors_of` told of; `schema`, where known, must be the same.

    Raises CheckpointError for a checkpoint of another model, optimizer or format. An average asked for only
    now starts from the current parameters; one that is no longer asked for is dropped. The reference number
    of workers stays what it was, unless the spec names it: scaling a job must not change its learning rate.
    """
    spec = _with_reference(spec, document.get("reference_workers"))
    written = _checked(spec, document, schema)
    moving, frozen = (bytes(written.section_bytes(slots)) for slots in (written.moving, written.frozen))
    state = ModelState.initial(written, spec, moving, frozen)
    _fill(tensors, "trainable", written.trainable, state.masters.views)
    _fill(tensors, "buffer", written.buffers, state.buffer_tensors())
    _fill(tensors, "frozen", [slot.entry for slot in written.frozen], state.frozen_tensors())
    if state.average is not None:
        kept = any(name.startswith("average.") for name in tensors)
        _fill(tensors, "average" if kept else "trainable", written.trainable, state.average.views)
    named = {
        n.removeprefix("optimizer."): t.clone() for n, t in tensors.items() if n.startswith("optimizer.")
    }
    state.restore(document["updates"], named, document["optimizer_scalars"])
    return state


def _with_reference(spec: JobSpec, workers: int | None) -> JobSpec:
    training = spec.training
    if workers is None or training.reference_workers is not None:
        return spec
    return spec.model_copy(update={"training": training.model_copy(update={"reference_workers": workers})})


def _checked(spec: JobSpec, document: Mapping[str, Any], schema: Schema | None) -> Schema:
    if document.get("format") != FORMAT:
        raise CheckpointError(f"checkpoint: format {document.get('format')}, this version reads {FORMAT}")
    written = Schema(msgspec.convert(document["schema"], tuple[TensorEntry, ...]))
    if schema is not None and written.hash != schema.hash:
        raise CheckpointError(
            f"checkpoint: is of another model: {written.difference(schema)}; "
            "set spec.checkpoint.path to a directory of its own for this one"
        )
    wanted = spec.training.optimizer.name
    if document["optimizer"] != wanted:
        raise CheckpointError(
            f"checkpoint: was written with optimizer {document['optimizer']}, spec.training.optimizer.name "
            f"is {wanted}: set it back, or set spec.checkpoint.path to a directory of its own"
        )
    return written


def _named(
    role: str, entries: tuple[TensorEntry, ...] | list[TensorEntry], tensors: list[torch.Tensor]
) -> dict[str, torch.Tensor]:
    return {f"{role}.{entry.name}": tensor for entry, tensor in zip(entries, tensors, strict=True)}


def _fill(
    tensors: Mapping[str, torch.Tensor],
    role: str,
    entries: tuple[TensorEntry, ...] | list[TensorEntry],
    views: list[torch.Tensor],
) -> None:
    for entry, view in zip(entries, views, strict=True):
        saved = tensors.get(f"{role}.{entry.name}")
        if saved is None or saved.shape != view.shape or saved.dtype != view.dtype:
            raise CheckpointError(f"checkpoint: tensor {role}.{entry.name} is missing, or of another kind")
        view.copy_(saved)
