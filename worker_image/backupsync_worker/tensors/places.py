"""Which tensors a model has for the wire, where its modules hold them, and which of them cannot travel."""

import itertools
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from backupsync.errors import ProgramError
from backupsync.wire.messages import TensorEntry
from backupsync_worker.tensors.device import DTYPES

DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_MAX_NAME, _MAX_DIMENSIONS = 512, 16


@dataclass
class Place:
    """One tensor of the model, by where modules hold it: code may assign a new tensor to a buffer."""

    owners: list[tuple[nn.Module, str]]
    names: list[str]
    role: Literal["trainable", "frozen", "buffer"]
    first: Tensor = field(repr=False)

    def tensors(self) -> list[Tensor]:
        """Return the tensors that stand in this place now; several, when tied buffers were assigned anew."""
        found: dict[int, Tensor] = {}
        for module, name in self.owners:
            tensor = getattr(module, name)
            found[id(tensor)] = tensor
        return list(found.values())

    def entry(self) -> TensorEntry:
        """Return what the wire says of it."""
        name, *aliases = self.names
        dtype, shape = DTYPE_NAMES[self.first.dtype], tuple(self.first.shape)
        return TensorEntry(name, dtype, shape, self.role, tuple(aliases))  # type: ignore[arg-type]


def places_of(model: nn.Module) -> list[Place]:
    """Collect the distinct tensors: parameters, then persistent buffers, in the order modules name them."""
    persistent = model.state_dict(keep_vars=True).keys()
    found: dict[tuple[object, ...], Place] = {}
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    for name, tensor in named:
        is_parameter = isinstance(tensor, nn.Parameter)
        if not is_parameter and name not in persistent:
            continue
        _refuse_tensor(name, tensor)
        path, _, attribute = name.rpartition(".")
        owner = (model.get_submodule(path), attribute)
        place = found.get(_identity(tensor))
        if place is None:
            role: Literal["trainable", "frozen", "buffer"] = (
                "buffer" if not is_parameter else "trainable" if tensor.requires_grad else "frozen"
            )
            found[_identity(tensor)] = Place([owner], [name], role, tensor)
        elif place.first is not tensor and (place.first.requires_grad or tensor.requires_grad):
            raise ProgramError(
                f"tensors {place.names[0]!r} and {name!r}: share memory without being one parameter; tie "
                "them by assigning the same Parameter to both"
            )
        else:
            place.owners.append(owner)
            place.names.append(name)
    _refuse_overlaps(list(found.values()))
    return list(found.values())


def _identity(tensor: Tensor) -> tuple[object, ...]:
    """Tell storage apart: where it lies and how it is read; an empty tensor is only itself."""
    if not tensor.numel():
        return (id(tensor),)
    return (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())


def _refuse_overlaps(places: list[Place]) -> None:
    # Of a tensor with gaps only the first element is looked at: its gaps may well be another's.
    spans = sorted(
        (t.device.type, t.data_ptr(), t.data_ptr() + (t.nbytes if t.is_contiguous() else t.itemsize), name)
        for t, name in ((place.first, place.names[0]) for place in places)
        if t.numel()
    )
    for (device, _, end, name), (other, start, _, following) in itertools.pairwise(spans):
        if device == other and start < end:
            raise ProgramError(
                f"tensors {name!r} and {following!r}: overlap in memory; give each its own (.clone())"
            )


def refuse_modules(model: nn.Module) -> None:
    """Raise ProgramError for a module whose gradients or state the wire cannot carry."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.sparse:
            raise ProgramError(
                f"module {name!r}: makes sparse gradients, and only dense ones are averaged; construct the "
                f"{type(module).__name__} with sparse=False"
            )
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            raise ProgramError(
                f"module {name!r}: keeps state that is no tensor (get_extra_state), which does not travel; "
                "register it as a buffer"
            )


def _refuse_tensor(name: str, tensor: Tensor) -> None:
    reason = None
    if nn.parameter.is_lazy(tensor):
        reason = "is not initialized yet; run one forward pass in model() before it returns"
    elif tensor.is_meta:
        reason = "is on the meta device; give it memory and values in model() (to_empty, then initialize)"
    elif tensor.layout != torch.strided:
        reason = f"is sparse ({tensor.layout}); store it dense"
    elif tensor.dtype not in DTYPE_NAMES:
        reason = f"has element type {tensor.dtype}; the wire carries {', '.join(DTYPES)}"
    elif any(n > 1 and s == 0 for n, s in zip(tensor.shape, tensor.stride(), strict=True)):
        reason = "is an expanded view, whose elements share memory; store it with .contiguous()"
    elif len(name) > _MAX_NAME or tensor.dim() > _MAX_DIMENSIONS:
        reason = f"exceeds the wire's bounds of {_MAX_NAME} characters and {_MAX_DIMENSIONS} dimensions"
    if reason:
        raise ProgramError(f"tensor {name!r}: {reason}")
