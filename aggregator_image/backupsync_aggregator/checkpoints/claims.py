"""Claims of epochs: which aggregator may write into a checkpoint directory. Files only, no tensors.

Every epoch is claimed once, by exclusive create of `claims/epoch-00000003.json`; the highest one owns the
directory. An older aggregator sees that at its next publish and is fenced: it can neither train on nor write.
"""

import errno
import json
import os
import re
import shutil
import uuid
from pathlib import Path
from typing import Final

from backupsync.errors import CheckpointError, Fenced

_CLAIM: Final = re.compile(r"epoch-(\d{8,})\.json")
_SCRATCH: Final = ".writing-"


class Claims:
    """The claims in one checkpoint directory, and the scratch space that belongs to ours."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder = path / "claims"
        self._epoch: int | None = None

    @property
    def epoch(self) -> int:
        """The epoch that was claimed. Raises CheckpointError when none was."""
        if self._epoch is None:
            raise CheckpointError(f"{self._path}: no epoch is claimed, so nothing may be written")
        return self._epoch

    def highest(self) -> int:
        """Return the highest epoch ever claimed here, 0 for none. Raises CheckpointError."""
        try:
            names = [file.name for file in self._folder.iterdir()] if self._folder.exists() else []
        except OSError as error:
            raise CheckpointError(f"{self._folder}: cannot be read: {error.strerror}") from error
        return max((int(found[1]) for name in names if (found := _CLAIM.fullmatch(name))), default=0)

    def owner(self) -> str | None:
        """Return who holds the highest claim, as it was told to `claim`; None where nobody can say."""
        try:
            file = self._folder / f"epoch-{self.highest():08d}.json"
            owner = json.loads(file.read_bytes()).get("owner")
        except (OSError, ValueError, AttributeError):
            return None
        return owner if isinstance(owner, str) else None

    def claim(self, epoch: int, owner: str) -> None:
        """Claim `epoch` for `owner` (a text for people). Raises Fenced when it, or a higher one, is taken.

        Whatever a predecessor was still writing is moved out of its way, so that its rename fails.
        """
        self._refuse(self.highest(), epoch)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._create(epoch, owner)
        except FileExistsError as error:
            raise self._fenced(epoch, epoch) from error
        except OSError as error:
            raise CheckpointError(f"{self._folder}: cannot be written: {error.strerror}") from error
        if (highest := self.highest()) > epoch:
            raise self._fenced(epoch, highest)
        self._epoch = epoch
        self._clear_scratch()

    def verify(self) -> None:
        """Raise Fenced when a higher epoch has been claimed since, CheckpointError when ours is gone."""
        highest = self.highest()
        if highest > self.epoch:
            raise self._fenced(self.epoch, highest)
        if highest < self.epoch:
            raise CheckpointError(
                f"{self._folder}: the claim of epoch {self.epoch} was removed; nothing is written"
            )

    def scratch(self) -> Path:
        """Create and return a folder to prepare files in. Raises OSError."""
        folder = self._path / f"{_SCRATCH}{self.epoch:08d}-{uuid.uuid4().hex}"
        folder.mkdir()
        return folder

    def _create(self, epoch: int, owner: str) -> None:
        text = json.dumps({"epoch": epoch, "owner": owner})
        with (self._folder / f"epoch-{epoch:08d}.json").open("x", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self._folder)

    def _clear_scratch(self) -> None:
        for folder in self._path.glob(f"{_SCRATCH}*"):
            aside = folder.with_name(f"{_SCRATCH}removed-{uuid.uuid4().hex}")
            try:
                folder.rename(aside)  # at once and whole: a rename by its writer fails from here on
            except OSError:
                continue  # its writer was faster
            shutil.rmtree(aside, ignore_errors=True)

    def _refuse(self, highest: int, epoch: int) -> None:
        if highest >= epoch:
            raise self._fenced(epoch, highest)

    def _fenced(self, epoch: int, highest: int) -> Fenced:
        return Fenced(
            f"{self._path}: epoch {highest} has been claimed; this aggregator's {epoch} may not write"
        )


def sync_folder(folder: Path) -> None:
    """Make renames and creations in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot, and need not
            raise
    finally:
        os.close(handle)
