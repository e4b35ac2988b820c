"""Images without a registry: a store on disk that holds each layer once, and gives a node only what it lacks.

The store is an OCI image layout; buildah fills it and containerd imports from it. A layer that is in a node's
containerd already (say, a large base) is neither packed nor sent again.
"""

import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

from cluster.errors import ClusterError
from cluster.settings import Settings
from cluster.shell import locked, run

PAUSE: Final = "localhost/pause:e2e"
COREDNS: Final = "localhost/coredns:e2e"
BUILDAH: Final = {"STORAGE_DRIVER": "overlay", "BUILDAH_ISOLATION": "chroot"}
NAME: Final = "org.opencontainers.image.ref.name"
CONTAINERD_NAME: Final = "io.containerd.image.name"


class ImageStore:
    """The images of a cluster, in an OCI image layout."""

    def __init__(self, settings: Settings) -> None:
        self._place = settings.images
        self._bin = settings.bin
        self._lock = settings.cache / "images.lock"

    def names(self) -> list[str]:
        """Every image in the store."""
        if not (self._place / "index.json").exists():
            return []
        return sorted(name for entry in self._index()["manifests"] if (name := _name_of(entry)))

    def add(self, name: str) -> None:
        """Take an image from buildah's storage (podman's too); layers that are in the store stay.

        Uncompressed, because nothing leaves this machine: packing a base of 1 GB would take half a minute.
        """
        command = ["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-oci-accept-uncompressed-layers"]
        source, target = f"containers-storage:{name}", f"oci:{self._place}:{name}"
        with locked(self._lock):
            run([*command, source, target], env=os.environ | BUILDAH, timeout=900)
            self._prune()

    def remove(self, name: str) -> None:
        """Forget an image; layers that another one has stay."""
        with locked(self._lock):
            self._prune(name)

    def add_own(self) -> None:
        """The two images that every cluster needs, each one static program: pause and CoreDNS."""
        names = self.names()
        catatonit = shutil.which("catatonit") or ""
        if PAUSE not in names:
            self._build(PAUSE, Path(catatonit), '["/catatonit", "-P"]')
        if COREDNS not in names or _older(self._place / "coredns.built", self._bin / "coredns"):
            self._build(COREDNS, self._bin / "coredns", '["/coredns"]')
            (self._place / "coredns.built").touch()

    def _build(self, name: str, program: Path, entrypoint: str) -> None:
        with tempfile.TemporaryDirectory() as place:
            shutil.copy(program, Path(place) / program.name)
            recipe = f"FROM scratch\nCOPY {program.name} /{program.name}\nENTRYPOINT {entrypoint}\n"
            (Path(place) / "Dockerfile").write_text(recipe)
            run(["buildah", "bud", "-q", "-t", name, place], env=os.environ | BUILDAH)
        self.add(name)

    def blobs(self, name: str) -> list[str]:
        """Digests of an image: manifest, configuration, layers."""
        entry = self._entry(name)
        manifest = json.loads(self._blob(entry["digest"]).read_bytes())
        return [
            entry["digest"],
            manifest["config"]["digest"],
            *(layer["digest"] for layer in manifest["layers"]),
        ]

    def large(self, limit: int) -> dict[str, list[str]]:
        """Every layer of more bytes than `limit`, by the smallest image that has it."""
        sizes = {name: self._layer_sizes(name) for name in self.names()}
        found: dict[str, list[str]] = {}
        seen: set[str] = set()
        for name in sorted(sizes, key=lambda name: sum(sizes[name].values())):
            if layers := [layer for layer, size in sizes[name].items() if size > limit and layer not in seen]:
                found[name] = layers
                seen.update(layers)
        return found

    def _layer_sizes(self, name: str) -> dict[str, int]:
        return {layer: self._blob(layer).stat().st_size for layer in self.blobs(name)[2:]}

    def write_archive(self, images: Mapping[str, str], there: set[str], target: IO[bytes]) -> None:
        """Write images, each under a name, as one OCI archive without the blobs that are already there."""
        with locked(self._lock, shared=True):
            self._write_archive(images, there, target)

    def _write_archive(self, images: Mapping[str, str], there: set[str], target: IO[bytes]) -> None:
        entries = [self._entry(image) | {"annotations": {CONTAINERD_NAME: images[image]}} for image in images]
        with tarfile.open(fileobj=target, mode="w|") as archive:
            _write(archive, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
            _write(archive, "index.json", json.dumps({"schemaVersion": 2, "manifests": entries}).encode())
            for digest in dict.fromkeys(digest for image in images for digest in self.blobs(image)):
                if digest not in there:
                    archive.add(self._blob(digest), f"blobs/{digest.replace(':', '/')}")

    def _blob(self, digest: str) -> Path:
        return self._place / "blobs" / digest.replace(":", "/")

    def _index(self) -> dict[str, Any]:
        index: dict[str, Any] = json.loads((self._place / "index.json").read_text())
        return index

    def _entry(self, name: str) -> dict[str, Any]:
        for entry in self._index()["manifests"]:
            if _name_of(entry) == name:
                return dict(entry)
        raise ClusterError(f"image {name} was not loaded: build it with buildah, then `load {name}`")

    def _prune(self, *unwanted: str) -> None:
        """Delete unwanted images, manifests whose name has moved on, and the blobs that only they have."""
        index = self._index()
        index["manifests"] = [
            entry for entry in index["manifests"] if _name_of(entry) and _name_of(entry) not in unwanted
        ]
        new = self._place / "index.new"
        new.write_text(json.dumps(index))
        new.rename(self._place / "index.json")
        kept = {digest for name in self.names() for digest in self.blobs(name)}
        for file in (self._place / "blobs" / "sha256").iterdir():
            if f"sha256:{file.name}" not in kept:
                file.unlink()


def _name_of(entry: dict[str, Any]) -> str:
    """Empty for an image whose name has moved on to another: buildah leaves its manifest behind."""
    return str((entry.get("annotations") or {}).get(NAME, ""))


def _older(file: Path, than: Path) -> bool:
    return not file.exists() or file.stat().st_mtime < than.stat().st_mtime


def _write(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
