"""What a new node finds on its disk: containerd's directory with the large layers in it.

Importing a base of 1 GB takes a node some ten seconds and two more gigabytes. So it is imported once, into a
directory that belongs to no node, and a new node gets hard links to it. That is safe: containerd never writes
to a blob or to the files of a committed layer, and its databases are copied.
"""

import json
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from cluster.images import ImageStore
from cluster.settings import Settings
from cluster.shell import feed, locked, run

HERE: Final = Path(__file__).parent
LARGE_BYTES: Final = 300_000_000


class Disk:
    """The prepared directory, in the cache."""

    def __init__(self, settings: Settings, store: ImageStore) -> None:
        self._place = settings.cache / "disk"
        self._content = settings.cache / "disk.json"
        self._blobs = settings.images / "blobs" / "sha256"
        self._lock = settings.cache / "disk.lock"
        self._store = store

    def prepare(self) -> None:
        """Import the large layers of the images in the store, unless exactly these are there."""
        with locked(self._lock):
            self._prepare()

    def _prepare(self) -> None:
        large = self._store.large(LARGE_BYTES)
        wanted = sorted({digest for digests in large.values() for digest in digests})
        if self._content.exists() and json.loads(self._content.read_text()) == wanted:
            return
        self._content.unlink(missing_ok=True)
        shutil.rmtree(self._place, ignore_errors=True)
        self._place.mkdir(parents=True)
        # Names of their own: a node must not seem to have an image that nobody loaded into it.
        images = {name: f"localhost/disk:{number}" for number, name in enumerate(large)}
        apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        if images:
            command: list[str | Path] = [*apart, "sh", HERE / "bake.sh", self._place]
            feed(command, lambda pipe: self._store.write_archive(images, set(), pipe))
            self._share_blobs()
        self._content.write_text(json.dumps(wanted))

    def _share_blobs(self) -> None:
        """The layers as they came are in the image store as well: once is enough."""
        for blob in (self._place / "io.containerd.content.v1.content" / "blobs" / "sha256").iterdir():
            with suppress(OSError):  # not the same file system, or gone from the store
                twin = blob.with_name("twin")
                twin.hardlink_to(self._blobs / blob.name)
                twin.rename(blob)

    def clone(self, target: Path) -> None:
        """Give a new node its disk."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(self._lock, shared=True):
            if self._content.exists():
                self._link(target)

    def _link(self, target: Path) -> None:
        # It gets its name when it is complete: nodes whose databases are still links would share them.
        # Nor is a name used twice: of an `up` that was killed, a copy may still be at work.
        new = Path(tempfile.mkdtemp(prefix="new-", dir=target.parent))
        linked = ["--link"] if new.parent.stat().st_dev == self._place.stat().st_dev else []
        run(["cp", "--archive", "--no-target-directory", *linked, self._place, new], timeout=600)
        for database in self._place.glob("*/*.db"):
            copy = new / database.relative_to(self._place)
            copy.unlink()
            shutil.copy(database, copy)
        new.rename(target)
