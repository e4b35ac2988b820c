"""A model on its way from a checkpoint directory to a person: what is sent, and what is made of it."""

import hashlib
import json
import shutil
import tarfile
from pathlib import Path
from typing import Final

from backupsync.cluster.errors import ClusterError
from backupsync.cluster.exec import CommandOutput
from backupsync.cluster.tensor_file import extract_model, move_into_place, read_header
from backupsync.errors import CheckpointError

MODEL: Final = "model.safetensors"
AVERAGED: Final = "model-ema.safetensors"
_STATE, _DOCUMENT, _SUMS = "state.safetensors", "checkpoint.json", "SHA256SUMS"

# Runs in the pod. Opens every file before it sends one: the aggregator may remove a checkpoint meanwhile, an
# open file stays. Prints a tar archive; fails with one line on stderr where there is nothing.
SENDER: Final = r"""
import os, re, sys, tarfile
root, kind = sys.argv[1:]
if kind == "retained" and os.path.isdir(root):
    # Every job that used this claim has a directory of its own; the newest one's is meant.
    found = [os.path.join(root, name) for name in os.listdir(root)]
    found = [path for path in found if os.path.isdir(os.path.join(path, "claims"))]
    root = max(found, key=os.path.getmtime, default=root)
def newest():
    found = []
    for name in os.listdir(root):
        match = re.fullmatch(r"checkpoint-(\d+)-epoch-(\d+)(?:-(\d+))?", name)
        if match:
            iteration, epoch, again = (int(part or 0) for part in match.groups())
            found.append(((epoch, iteration, again), os.path.join(root, name)))
    return max(found)[1] if found else None
def opened():
    models = ("model.safetensors", "model-ema.safetensors")
    if kind != "newest" and os.path.exists(os.path.join(root, models[0])):
        there = [n for n in models if os.path.exists(os.path.join(root, n))]
        return [(n, open(os.path.join(root, n), "rb")) for n in there]
    folder = newest()
    if folder is None:
        return []
    parts = ("SHA256SUMS", "checkpoint.json", "state.safetensors")
    return [(n, open(os.path.join(folder, n), "rb")) for n in parts]
for attempt in range(5):
    try:
        files = opened()
        break
    except FileNotFoundError as error:
        files = []
        if not os.path.isdir(root):
            break
if not files:
    sys.exit(f"no checkpoint in {root} yet" if os.path.isdir(root) else f"there is no directory {root}")
with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.PAX_FORMAT) as archive:
    for name, file in files:
        archive.addfile(archive.gettarinfo(arcname=name, fileobj=file), file)
"""


def unpack(output: CommandOutput, folder: Path) -> None:
    """Write the files of the archive into `folder`. Raises ClusterError where the sender failed."""
    allowed = {MODEL, AVERAGED, _STATE, _DOCUMENT, _SUMS}
    try:
        with tarfile.open(fileobj=output, mode="r|") as archive:
            for member in archive:
                source = archive.extractfile(member) if member.isreg() and member.name in allowed else None
                if source is None:
                    raise CheckpointError(f"the pod sent {member.name!r}, which nobody asked for")
                with (folder / member.name).open("xb") as file:
                    shutil.copyfileobj(source, file, 1024 * 1024)
    except tarfile.TarError as error:
        output.finish()
        raise ClusterError(f"the model arrived cut off: {error}; try again") from error
    output.finish()


def models_of(folder: Path, out: Path, averaged: bool) -> list[Path]:
    """Check what came, make model files of it, and put them into `out`."""
    if not (folder / MODEL).exists():
        missing = [name for name in (_SUMS, _DOCUMENT, _STATE) if not (folder / name).exists()]
        if missing:
            raise ClusterError(f"the checkpoint arrived without {' and '.join(missing)}; try again")
        _verify(folder)
        entries = json.loads((folder / _DOCUMENT).read_bytes())["schema"]
        extract_model(folder / _STATE, entries, folder / MODEL, averaged=False)
        if averaged:
            extract_model(folder / _STATE, entries, folder / AVERAGED, averaged=True)
    elif averaged and not (folder / AVERAGED).exists():
        raise CheckpointError("the job kept no moving average; set spec.training.emaDecay for one")
    names = [MODEL, AVERAGED] if averaged else [MODEL]
    for name in names:
        read_header(folder / name)
    return move_into_place({folder / name: out / name for name in names})


def _verify(folder: Path) -> None:
    for line in (folder / _SUMS).read_text(encoding="ascii").splitlines():
        digest, _, name = line.partition("  ")
        with (folder / Path(name).name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise CheckpointError(f"the checkpoint's {name} differs from its SHA-256; try again")
