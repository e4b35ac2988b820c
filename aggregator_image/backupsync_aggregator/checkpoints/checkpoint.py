"""The checkpoint directory: atomic, versioned checkpoints, the finished model, and who may write them.

    claims/epoch-00000003.json                  one for each aggregator that ever took over
    checkpoint-00000050-epoch-00000003/         state.safetensors, checkpoint.json, SHA256SUMS
    model.safetensors, model-ema.safetensors    at success

Everything is prepared in a scratch folder, flushed to the disk, and renamed into place after a last look at
the claims: a reader sees a whole checkpoint or none, whatever was killed, cut off or full.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file

from backupsync.errors import CheckpointError
from backupsync.spec import JobSpec
from backupsync.wire.schema import Schema
from backupsync_aggregator.checkpoints.claims import Claims, sync_folder
from backupsync_aggregator.checkpoints.model_files import write_models
from backupsync_aggregator.checkpoints.snapshot import describe, restore, tensors_of
from backupsync_aggregator.checkpoints.tensor_files import file_digest, write_pieces, write_tensors
from backupsync_aggregator.tensors.model_state import ModelState

STATE: Final = "state.safetensors"
DOCUMENT: Final = "checkpoint.json"
SUMS: Final = "SHA256SUMS"
_NAME: Final = re.compile(r"checkpoint-(\d{8,})-epoch-(\d{8,})(?:-(\d+))?")


class _Key(NamedTuple):
    """Order of checkpoints: a later epoch's count more, for they descend from the one it resumed from."""

    epoch: int
    iteration: int
    again: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checkpoint that was read back."""

    model_state: ModelState
    progress: dict[str, Any]
    iteration: int
    path: Path
    skipped: tuple[str, ...]
    """Newer checkpoints that are damaged, each with what is wrong with it."""


class _Damaged(Exception):  # noqa: N818 -- a state of a file, which the loader steps over
    """A checkpoint that cannot be read; another may."""


class CheckpointDirectory:
    """One job's checkpoint directory; keeps the newest `keep`. Raises CheckpointError where unwritable."""

    def __init__(self, path: Path, keep: int) -> None:
        self.path = Path(path)
        self._keep = keep
        self._claims = Claims(self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.path).close()
        except OSError as error:
            raise self._unwritable("", error) from error

    def claim(self, epoch: int, owner: str) -> None:
        """Become the one writer, under `epoch`. Raises Fenced when it, or a higher one, is taken."""
        self._claims.claim(epoch, owner)

    def verify_claim(self) -> None:
        """Raise Fenced when a newer aggregator has taken over."""
        self._claims.verify()

    def highest_claim(self) -> int:
        """Return the highest epoch ever claimed, 0 for none."""
        return self._claims.highest()

    def owner(self) -> str | None:
        """Return who made the highest claim, None where there is none."""
        return self._claims.owner()

    def iterations(self) -> list[int]:
        """Return the iterations that have a checkpoint, whole or damaged, in rising order."""
        return sorted({key.iteration for key, _ in self._checkpoints()})

    def save(self, iteration: int, model_state: ModelState, progress: dict[str, Any]) -> Path:
        """Write the checkpoint after `iteration` updates; `progress` is the caller's own JSON.

        Returns its folder. Raises CheckpointError when it cannot be written (the previous one stays, and no
        rest is left behind) and Fenced when a newer aggregator has taken over.
        """
        with self._publishing(f"checkpoint {iteration}") as scratch:
            state = write_tensors(scratch / STATE, tensors_of(model_state), {"format": "pt"})
            said = describe(model_state) | {
                "iteration": iteration,
                "epoch": self._claims.epoch,
                "progress": progress,
            }
            text = json.dumps(said, indent=1).encode()
            document = write_pieces(scratch / DOCUMENT, [text], {})
            sums = f"{state}  {STATE}\n{document}  {DOCUMENT}\n".encode()
            write_pieces(scratch / SUMS, [sums], {})
            sync_folder(scratch)
            self.verify_claim()
            target = self._free_name(iteration)
            scratch.rename(target)
            sync_folder(self.path)
        self._prune()
        return target

    def load_newest(self, spec: JobSpec, schema: Schema | None = None) -> Loaded | None:
        """Read the newest checkpoint that is whole; None where there is none at all.

        Raises CheckpointError when every one is damaged, or when it belongs to another model (than `schema`,
        where given) or another optimizer.
        """
        skipped: list[str] = []
        for key, folder in self._checkpoints():
            try:
                document = _verified(folder)
                tensors = load_file(folder / STATE)
            except (_Damaged, OSError, SafetensorError, ValueError) as error:
                skipped.append(f"{folder.name}: {error}")
                continue
            state = restore(spec, document, tensors, schema)
            return Loaded(state, document["progress"], key.iteration, folder, tuple(skipped))
        if skipped:
            raise CheckpointError(
                f"spec.checkpoint.path {self.path}: every checkpoint is damaged ({'; '.join(skipped)}); "
                "remove them to start from the beginning"
            )
        return None

    def save_model(self, model_state: ModelState) -> list[Path]:
        """Write model.safetensors, and model-ema.safetensors where an average is kept, each at once.

        Returns their paths. Raises CheckpointError and Fenced, as `save` does.
        """
        with self._publishing("the model") as scratch:
            names = write_models(model_state, scratch)
            self.verify_claim()
            for name in names:
                (scratch / name).replace(self.path / name)
            sync_folder(self.path)
        return [self.path / name for name in names]

    @contextmanager
    def _publishing(self, what: str) -> Iterator[Path]:
        """Lend a scratch folder that is gone afterwards, and turn what the disk says into our errors."""
        self.verify_claim()
        scratch: Path | None = None
        try:
            scratch = self._claims.scratch()
            yield scratch
        except OSError as error:
            self.verify_claim()  # a successor may have moved the scratch folder away
            raise self._unwritable(f"{what}: ", error) from error
        finally:
            if scratch is not None:
                shutil.rmtree(scratch, ignore_errors=True)

    def _unwritable(self, what: str, error: OSError) -> CheckpointError:
        return CheckpointError(
            f"spec.checkpoint.path {self.path}: {what}cannot be written: {error.strerror or error}; "
            "it must be a directory that this user may write, with room for keep + 1 checkpoints"
        )

    def _checkpoints(self) -> list[tuple[_Key, Path]]:
        found = []
        try:
            for folder in self.path.iterdir():
                match = _NAME.fullmatch(folder.name)
                if match:
                    iteration, epoch, again = (int(part or 0) for part in match.groups())
                    found.append((_Key(epoch, iteration, again), folder))
        except OSError as error:
            raise CheckpointError(
                f"spec.checkpoint.path {self.path}: cannot be read: {error.strerror}"
            ) from error
        return sorted(found, reverse=True)

    def _free_name(self, iteration: int) -> Path:
        """Return a name that never was: a checkpoint is not replaced, so there is no moment without it."""
        name = f"checkpoint-{iteration:08d}-epoch-{self._claims.epoch:08d}"
        same = [
            key.again
            for key, _ in self._checkpoints()
            if (key.epoch, key.iteration) == (self._claims.epoch, iteration)
        ]
        return self.path / (f"{name}-{max(same) + 1}" if same else name)

    def _prune(self) -> None:
        kept: set[tuple[int, int]] = set()
        for key, folder in self._checkpoints():
            identity = (key.epoch, key.iteration)
            if identity in kept or len(kept) == self._keep:
                shutil.rmtree(folder, ignore_errors=True)
            kept.add(identity)


def _verified(folder: Path) -> dict[str, Any]:
    """Compare every file with its sum, and return the document. Raises _Damaged, OSError, ValueError."""
    lines = (folder / SUMS).read_text(encoding="ascii").removesuffix("\n").split("\n")
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    if set(sums) != {STATE, DOCUMENT}:
        raise _Damaged(f"{SUMS}: is truncated")
    for name, digest in sums.items():
        if file_digest(folder / name) != digest:
            raise _Damaged(f"{name}: SHA-256 differs")
    document: dict[str, Any] = json.loads((folder / DOCUMENT).read_bytes())
    return document
