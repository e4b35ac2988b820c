"""FlatModel: which tensors a model has for the wire, and its sections read and written in place."""

import hashlib

import pytest
import torch
from torch import nn

from backupsync.errors import ProgramError
from backupsync_worker.tensors.flat_model import FlatModel

CHUNK = 4096


def flat(model: nn.Module) -> FlatModel:
    return FlatModel(model, "float32", CHUNK)


def roles(model: nn.Module) -> dict[str, str]:
    return {entry.name: entry.role for entry in flat(model).schema.entries}


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Embedding(7, 4)
        self.decode = nn.Linear(4, 7, bias=False)
        self.decode.weight = self.encode.weight

    def forward(self, tokens):
        return self.decode(self.encode(tokens))


class NoElements(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(0))


# ---- the schema ------------------------------------------------------------------------------------------


def test_parameters_are_trainable_or_frozen_and_buffers_are_buffers():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    model[0].weight.requires_grad_(False)
    assert roles(model) == {
        "0.weight": "frozen",
        "0.bias": "trainable",
        "1.weight": "trainable",
        "1.bias": "trainable",
        "1.running_mean": "buffer",
        "1.running_var": "buffer",
        "1.num_batches_tracked": "buffer",
    }


def test_buffers_that_are_not_persistent_do_not_travel():
    model = nn.Linear(2, 2)
    model.register_buffer("kept", torch.zeros(2))
    model.register_buffer("scratch", torch.zeros(2), persistent=False)
    assert "kept" in roles(model)
    assert "scratch" not in roles(model)


def test_a_tied_parameter_counts_once_under_its_first_name_with_the_others_as_aliases():
    (entry,) = flat(Tied()).schema.entries
    assert (entry.name, entry.aliases) == ("encode.weight", ("decode.weight",))


def test_a_tied_buffer_counts_once_too():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    table = torch.arange(3.0)
    model[0].register_buffer("table", table)
    model[1].register_buffer("table", table)
    buffers = flat(model).schema.buffers
    assert [(b.name, b.aliases) for b in buffers] == [("0.table", ("1.table",))]


def test_a_module_used_in_two_places_counts_once():
    shared = nn.Linear(2, 2)
    entries = flat(nn.Sequential(shared, nn.ReLU(), shared)).schema.entries
    assert [(e.name, e.aliases) for e in entries] == [("0.weight", ("2.weight",)), ("0.bias", ("2.bias",))]


def test_names_and_aliases_together_are_the_keys_of_the_state_dict():
    model = nn.Sequential(Tied(), nn.BatchNorm1d(3))
    entries = flat(model).schema.entries
    assert {n for e in entries for n in (e.name, *e.aliases)} == set(model.state_dict())


def test_equal_models_have_equal_schema_hashes_and_others_do_not():
    assert flat(nn.Linear(2, 3)).schema.hash == flat(nn.Linear(2, 3)).schema.hash
    assert flat(nn.Linear(2, 3)).schema.hash != flat(nn.Linear(2, 3).double()).schema.hash


# ---- sections --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_initial_sections_loaded_elsewhere_make_an_equal_model(dtype):
    def make() -> nn.Module:
        model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Linear(5, 5)).to(dtype)
        model[2].weight.requires_grad_(False)
        model.register_buffer("mask", torch.tensor([True, False, True]))
        model.register_buffer("empty", torch.zeros(0))
        return model

    source, target = make(), make()
    source.mask.fill_(True)
    moving, frozen = flat(source).initial()
    other = flat(target)
    other.load("moving", moving)
    other.load("frozen", frozen)
    for name, tensor in source.state_dict().items():
        assert torch.equal(tensor, target.state_dict()[name]), name


def test_sections_are_read_only_and_padding_is_zero():
    moving, _ = flat(nn.Linear(1, 1)).initial()
    assert moving.readonly
    assert len(moving) == 128
    assert bytes(moving[4:64]) == bytes(60)


def test_loading_writes_into_the_tensors_the_model_already_has():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    before = {name: (id(t), t.data_ptr()) for name, t in model.state_dict(keep_vars=True).items()}
    this = flat(model)
    this.load("moving", bytes(len(this.initial()[0])))
    after = {name: (id(t), t.data_ptr()) for name, t in model.state_dict(keep_vars=True).items()}
    assert before == after
    assert not any(t.any() for t in model.state_dict().values())


def test_a_read_only_buffer_at_an_odd_address_is_loaded_without_a_warning():
    model = nn.Linear(3, 4)
    moving, _ = flat(model).initial()
    expected = model.weight.detach().clone()
    model.weight.data.zero_()
    flat(model).load("moving", memoryview(b"x" + bytes(moving))[1:])
    assert torch.equal(model.weight, expected)


def test_tensors_that_are_not_contiguous_are_loaded_too():
    model = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
    assert not model.weight.is_contiguous()
    expected = model.weight.detach().clone()
    moving, _ = flat(model).initial()
    model.weight.data.zero_()
    flat(model).load("moving", moving)
    assert torch.equal(model.weight, expected)
    assert model.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_section_of_another_length_is_refused_and_nothing_is_written():
    model = nn.Linear(3, 4)
    expected = model.weight.detach().clone()
    with pytest.raises(ValueError, match="section moving: 7 bytes came, the schema has 128"):
        flat(model).load("moving", bytes(7))
    assert torch.equal(model.weight, expected)


def test_the_commit_payload_holds_the_buffers_alone_or_is_none():
    model = nn.BatchNorm1d(4)
    model.running_mean.fill_(2.0)
    payload = flat(model).buffers()
    assert torch.frombuffer(bytearray(payload[:16]), dtype=torch.float32).tolist() == [2.0] * 4
    assert len(payload) == 3 * 64
    assert flat(nn.Linear(1, 1)).buffers() is None


def test_the_commit_payload_does_not_change_with_the_model():
    model = nn.BatchNorm1d(4)
    payload = flat(model).buffers()
    before = hashlib.sha256(payload).digest()
    model.running_mean.fill_(9.0)
    assert hashlib.sha256(payload).digest() == before


def test_a_buffer_that_the_program_assigns_anew_is_still_read_and_written():
    model = nn.Linear(1, 1)
    model.register_buffer("seen", torch.zeros(1))
    this = flat(model)
    model.seen = model.seen + 5
    assert torch.frombuffer(bytearray(this.buffers()[:4]), dtype=torch.float32).item() == 5
    this.reset_buffers()
    assert model.seen.item() == 0


def test_resetting_puts_the_buffers_back_as_they_were_loaded():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    this = flat(model)
    moving, _ = this.initial()
    model(torch.randn(8, 2))
    this.reset_buffers()
    assert this.initial()[0] == moving


# ---- what cannot travel ----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [nn.ReLU(), nn.Linear(2, 2).requires_grad_(False), NoElements()])
def test_a_model_with_nothing_to_train_is_refused(model):
    with pytest.raises(ProgramError, match=r"no trainable parameters; model\(\) must return"):
        flat(model)


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_sparse_embeddings_are_refused_before_training(kind):
    with pytest.raises(ProgramError, match=r"module '0': makes sparse gradients.*sparse=False"):
        flat(nn.Sequential(kind(5, 2, sparse=True)))


def test_state_that_is_no_tensor_is_refused():
    class Counter(nn.Linear):
        def get_extra_state(self):
            return {"calls": 3}

    with pytest.raises(
        ProgramError, match=r"module '1': keeps state that is no tensor.*register it as a buffer"
    ):
        flat(nn.Sequential(nn.ReLU(), Counter(2, 2)))


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_lazy_parameters_are_refused():
    model = nn.LazyLinear(2)
    with pytest.raises(ProgramError, match="'weight': is not initialized yet; run one forward pass"):
        flat(model)


def test_meta_tensors_are_refused():
    with pytest.raises(ProgramError, match="'weight': is on the meta device"):
        flat(nn.Linear(2, 2, device="meta"))


def test_element_types_that_the_wire_lacks_are_refused_by_name():
    with pytest.raises(ProgramError, match=r"'weight': has element type torch.complex64; the wire carries"):
        flat(nn.Linear(2, 2, dtype=torch.complex64))


def test_sparse_tensors_are_refused():
    model = nn.Linear(2, 2)
    model.register_buffer("adjacency", torch.eye(3).to_sparse())
    with pytest.raises(ProgramError, match="'adjacency': is sparse"):
        flat(model)


def test_expanded_buffers_are_refused():
    model = nn.Linear(2, 2)
    model.register_buffer("wide", torch.zeros(1).expand(8))
    with pytest.raises(ProgramError, match=r"'wide': is an expanded view.*contiguous\(\)"):
        flat(model)


@pytest.mark.parametrize("view", [lambda w: w, lambda w: w.t()])
def test_two_parameters_on_one_memory_are_refused(view):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = nn.Parameter(view(model[0].weight.data))
    with pytest.raises(ProgramError, match=r"'0.weight' and '1.weight'|'1.weight' and '0.weight'"):
        flat(model)


def test_parameters_that_are_slices_of_one_array_are_no_overlap():
    model, together = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), torch.zeros(2, 2, 2)
    model[0].weight.data, model[1].weight.data = together[0], together[1]
    assert len(flat(model).schema.trainable) == 4


def test_names_beyond_the_wires_bounds_are_refused():
    model = nn.Module()
    model.register_parameter("n" * 513, nn.Parameter(torch.zeros(1)))
    with pytest.raises(ProgramError, match="exceeds the wire's bounds of 512 characters"):
        flat(model)


def test_a_parameter_replaced_while_training_is_named():
    model = nn.Linear(2, 2)
    this = flat(model)
    model.weight = nn.Parameter(torch.zeros(2, 2))
    with pytest.raises(ProgramError, match="'weight': was replaced by another while training"):
        this.load("moving", bytes(128))


def test_a_buffer_that_changes_its_shape_while_training_is_named():
    model = nn.BatchNorm1d(2)
    this = flat(model)
    model.running_mean = torch.zeros(3)
    with pytest.raises(ProgramError, match=r"'running_mean': became torch.float32\[3\] while training"):
        this.buffers()
