"""A model's way home: sent by the real sender from real checkpoints, unpacked, and checked."""

import io
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from backupsync.cluster import ClusterError
from backupsync.cluster.model_transfer import AVERAGED, MODEL, SENDER, models_of, unpack
from backupsync.cluster.tensor_file import extract_model, read_header
from backupsync.errors import CheckpointError
from backupsync.spec import JobSpec
from backupsync.wire.messages import TensorEntry
from backupsync.wire.schema import Schema
from backupsync_aggregator.checkpoints.checkpoint import CheckpointDirectory
from backupsync_aggregator.checkpoints.model_files import state_dict
from backupsync_aggregator.tensors.averaging import WeightedGradient
from backupsync_aggregator.tensors.model_state import ModelState

SCHEMA = Schema(
    (
        TensorEntry("w", "float32", (7, 5), "trainable"),
        TensorEntry("half", "bfloat16", (9,), "trainable", ("tied",)),
        TensorEntry("quarter", "float16", (4,), "trainable"),
        TensorEntry("wide", "float64", (3,), "trainable"),
        TensorEntry("scalar", "float32", (), "trainable"),
        TensorEntry("empty", "float32", (0, 3), "trainable"),
        TensorEntry("base", "float32", (4,), "frozen"),
        TensorEntry("mean", "float32", (3,), "buffer"),
        TensorEntry("steps", "int64", (), "buffer"),
    )
)


def trained(ema=True) -> ModelState:
    """A state after two updates: masters between what half precision can say, an average behind them."""
    torch.manual_seed(0)
    training = {"iterations": 10, "batchSize": 4, "optimizer": {"name": "SGD", "lr": 0.1}}
    spec = JobSpec.model_validate(
        {
            "program": {"entrypoint": "program:Program"},
            "aggregation": {"workers": 1},
            "training": training | ({"emaDecay": 0.5} if ema else {}),
        }
    )
    moving = bytes(SCHEMA.section_bytes(SCHEMA.moving))
    state = ModelState.initial(SCHEMA, spec, moving, bytes(SCHEMA.section_bytes(SCHEMA.frozen)))
    for tensor in state.frozen_tensors():
        tensor.fill_(2.5)
    for step in range(2):
        gradient = torch.randn(SCHEMA.gradient_elements)
        buffers = bytes(SCHEMA.section_bytes(SCHEMA.buffer_section))
        state.apply([WeightedGradient(gradient, 4, 1.0, (), buffers)], 4 * step)
    return state


@pytest.fixture
def directory(tmp_path):
    made = CheckpointDirectory(tmp_path / "checkpoints", 3)
    made.claim(1, "test")
    return made


def sent(root, kind="newest") -> subprocess.CompletedProcess:
    """Run the sender as the pod does."""
    command = [sys.executable, "-c", SENDER, str(root), kind]
    return subprocess.run(command, capture_output=True, check=False, timeout=60)


class Output(io.BytesIO):
    """What a command wrote, and whether it ended well."""

    def __init__(self, done: subprocess.CompletedProcess):
        super().__init__(done.stdout)
        self._done = done

    def finish(self):
        if self._done.returncode:
            raise ClusterError(self._done.stderr.decode())


def fetched(tmp_path, root, *, averaged=False, kind="newest"):
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    scratch.mkdir()
    out.mkdir()
    unpack(Output(sent(root, kind)), scratch)
    return models_of(scratch, out, averaged)


def same(path, expected):
    found = load_file(path)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def test_a_checkpoint_becomes_the_model_that_the_aggregator_would_write(directory, tmp_path):
    state = trained()
    directory.save(7, state, {})
    files = fetched(tmp_path, directory.path, averaged=True)
    assert [file.name for file in files] == [MODEL, AVERAGED]
    same(files[0], state_dict(state, averaged=False))
    same(files[1], state_dict(state, averaged=True))
    assert load_file(files[0])["half"].dtype == torch.bfloat16


def test_a_finished_model_travels_as_it_is(directory, tmp_path):
    state = trained()
    directory.save(7, trained(), {})
    directory.save_model(state)
    files = fetched(tmp_path, directory.path, kind="finished", averaged=True)
    assert files[0].read_bytes() == (directory.path / MODEL).read_bytes()
    assert files[1].read_bytes() == (directory.path / AVERAGED).read_bytes()


def test_the_newest_checkpoint_is_the_one_of_the_latest_epoch(directory, tmp_path):
    directory.save(9, trained(), {})
    later = CheckpointDirectory(directory.path, 3)
    later.claim(2, "successor")
    state = trained()
    state.apply([WeightedGradient(torch.ones(SCHEMA.gradient_elements), 4, 1.0, (), None)], 8)
    later.save(8, state, {})
    same(fetched(tmp_path, directory.path)[0], state_dict(state, averaged=False))


def test_of_a_claim_that_several_jobs_used_the_newest_ones_directory_is_read(tmp_path):
    import os

    for index, uid in enumerate(("older", "newer")):
        made = CheckpointDirectory(tmp_path / "claim" / uid, 3)
        made.claim(1, uid)
        made.save_model(trained(ema=uid == "newer"))
        os.utime(made.path, (1000 + index, 1000 + index))
    (tmp_path / "claim" / "lost+found").mkdir()
    files = fetched(tmp_path, tmp_path / "claim", kind="retained", averaged=True)
    assert [file.name for file in files] == [MODEL, AVERAGED]


@pytest.mark.parametrize(("made", "said"), [(True, "no checkpoint in"), (False, "there is no directory")])
def test_nothing_to_send_is_said(tmp_path, made, said):
    if made:
        (tmp_path / "root").mkdir()
    done = sent(tmp_path / "root")
    assert done.returncode != 0
    assert said in done.stderr.decode()
    with pytest.raises(ClusterError, match=said):
        unpack(Output(done), tmp_path)


def test_an_average_that_was_not_kept_is_said(directory, tmp_path):
    directory.save(7, trained(ema=False), {})
    with pytest.raises(CheckpointError, match=r"set spec.training.emaDecay"):
        fetched(tmp_path, directory.path, averaged=True)


@pytest.mark.parametrize("missing", [1, 600, 3000])
def test_what_arrives_cut_off_is_never_taken_for_a_model(directory, tmp_path, missing):
    directory.save(7, trained(), {})
    done = sent(directory.path)
    done.stdout = done.stdout.rstrip(b"\0")[:-missing]  # an archive ends with padding
    (tmp_path / "scratch").mkdir()
    with pytest.raises((ClusterError, CheckpointError)):
        unpack(Output(done), tmp_path / "scratch")
        models_of(tmp_path / "scratch", tmp_path, averaged=False)
    assert not (tmp_path / MODEL).exists()


def test_a_checkpoint_that_was_damaged_is_refused(directory, tmp_path):
    path = directory.save(7, trained(), {}) / "state.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"state.safetensors differs from its SHA-256"):
        fetched(tmp_path, directory.path)


def test_a_pod_that_sends_something_else_is_refused(tmp_path):
    import tarfile

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w|") as archive:
        archive.addfile(tarfile.TarInfo("../../.bashrc"), io.BytesIO())
    done = subprocess.CompletedProcess([], 0, packed.getvalue(), b"")
    with pytest.raises(CheckpointError, match=r"sent '../../.bashrc', which nobody asked for"):
        unpack(Output(done), tmp_path)


def test_files_of_the_format_are_read_as_the_library_writes_them(tmp_path):
    tensors = {"a": torch.zeros(2, 3), "b": torch.zeros((), dtype=torch.int64), "c": torch.zeros(0)}
    save_file(tensors, tmp_path / "x.safetensors")
    found, _ = read_header(tmp_path / "x.safetensors")
    assert {name: t.shape for name, t in found.items()} == {"a": (2, 3), "b": (), "c": (0,)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[:4], "is no safetensors file"),
        (lambda data: b"\xff" * 8 + data[8:], "is no safetensors file"),
        (lambda data: data[:-1], "is truncated"),
        (lambda data: data + b"x", "is truncated"),
        (lambda data: data[:8] + b"x" + data[9:], "its header cannot be read"),
        (lambda data: data.replace(b"[2,3]", b"[2,4]"), "do not fit its shape"),
    ],
)
def test_a_file_that_is_damaged_is_refused(tmp_path, change, said):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(2, 3)}, path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(CheckpointError, match=said):
        read_header(path)


def test_a_state_that_lacks_a_tensor_is_refused(tmp_path):
    save_file({"trainable.a": torch.zeros(1)}, tmp_path / "state")
    entries = [{"name": "b", "dtype": "float32", "shape": [1], "role": "trainable"}]
    with pytest.raises(CheckpointError, match=r"lacks the tensor trainable.b"):
        extract_model(tmp_path / "state", entries, tmp_path / "out", averaged=False)
