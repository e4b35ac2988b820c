import hashlib
import io
import json
import tarfile

import pytest

from cluster.errors import ClusterError
from cluster.images import ImageStore
from cluster.node import dangling, targets
from cluster.settings import Settings


class Layout:
    """An OCI image layout with the images it is told to have."""

    def __init__(self, place):
        self.place = place / "images"
        (self.place / "blobs" / "sha256").mkdir(parents=True)
        self.store = ImageStore(Settings(place, place))
        self.entries = []

    def blob(self, content):
        digest = hashlib.sha256(content).hexdigest()
        (self.place / "blobs" / "sha256" / digest).write_bytes(content)
        return f"sha256:{digest}"

    def image(self, name, *layers):
        config = self.blob(f"config of {name}".encode())
        layer_digests = [{"digest": self.blob(layer)} for layer in layers]
        manifest = self.blob(json.dumps({"config": {"digest": config}, "layers": layer_digests}).encode())
        annotations = {"org.opencontainers.image.ref.name": name}
        self.entries.append({"digest": manifest, "size": 1, "annotations": annotations})
        (self.place / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": self.entries}))


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path)


def archived(store, name, there=()):
    file = io.BytesIO()
    store.write_archive({name: name}, set(there), file)
    with tarfile.open(fileobj=io.BytesIO(file.getvalue())) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive}


def test_a_node_that_has_nothing_gets_everything(layout):
    layout.image("localhost/worker:1", b"base", b"top")
    found = archived(layout.store, "localhost/worker:1")
    assert {b"base", b"top"} <= set(found.values())
    entry = json.loads(found["index.json"])["manifests"][0]
    assert entry["annotations"] == {"io.containerd.image.name": "localhost/worker:1"}


def test_a_node_that_has_the_base_gets_the_rest(layout):
    layout.image("localhost/base:1", b"base")
    layout.image("localhost/worker:1", b"base", b"top")
    found = archived(layout.store, "localhost/worker:1", layout.store.blobs("localhost/base:1"))
    assert b"top" in found.values()
    assert b"base" not in found.values()


def test_layers_that_come_twice_are_packed_once(layout):
    layout.image("localhost/twice:1", b"same", b"same")
    assert list(archived(layout.store, "localhost/twice:1").values()).count(b"same") == 1


def test_images_of_one_archive_share_their_layers(layout):
    layout.image("localhost/worker:1", b"base", b"top")
    layout.image("localhost/aggregator:1", b"base", b"other top")
    file = io.BytesIO()
    layout.store.write_archive({"localhost/worker:1": "a", "localhost/aggregator:1": "b"}, set(), file)
    with tarfile.open(fileobj=io.BytesIO(file.getvalue())) as archive:
        contents = [archive.extractfile(entry).read() for entry in archive]
    assert contents.count(b"base") == 1
    assert {b"top", b"other top"} <= set(contents)


def test_a_large_layer_is_taken_from_the_smallest_image_that_has_it(layout):
    assert layout.store.large(0) == {}
    layout.image("localhost/worker:1", b"much more", b"and a top")
    layout.image("localhost/base:1", b"much more")
    layout.image("localhost/small:1", b"x")
    assert layout.store.large(5) == {
        "localhost/base:1": [layout.store.blobs("localhost/base:1")[2]],
        "localhost/worker:1": [layout.store.blobs("localhost/worker:1")[3]],
    }
    assert list(layout.store.large(9)) == []


def test_an_image_that_was_not_loaded_is_named(layout):
    layout.image("localhost/base:1", b"base")
    with pytest.raises(ClusterError, match="localhost/other:1 was not loaded"):
        layout.store.blobs("localhost/other:1")


def test_an_image_whose_name_moved_on_dangles():
    listing = """\
REF                  TYPE                                       DIGEST      SIZE     PLATFORMS   LABELS
localhost/worker:1   application/vnd.oci.image.manifest.v1+json sha256:new  1.2 GiB  linux/amd64 -
sha256:config-of-new application/vnd.oci.image.manifest.v1+json sha256:new  1.2 GiB  linux/amd64 managed
sha256:config-of-old application/vnd.oci.image.manifest.v1+json sha256:old  1.2 GiB  linux/amd64 managed
"""
    assert targets(listing)["localhost/worker:1"] == "sha256:new"
    assert dangling(targets(listing)) == ["sha256:config-of-old"]


def test_what_no_image_needs_any_more_is_deleted(layout):
    layout.image("localhost/base:1", b"base")
    layout.image("localhost/worker:1", b"base", b"old top")
    del layout.entries[-1]["annotations"]  # as skopeo leaves it when the name moves on
    layout.image("localhost/worker:1", b"base", b"new top")
    layout.image("localhost/unwanted:1", b"base", b"unwanted")
    layout.store.remove("localhost/unwanted:1")
    left = {file.read_bytes() for file in (layout.place / "blobs" / "sha256").iterdir()}
    assert {b"base", b"new top"} <= left
    assert not {b"old top", b"unwanted"} & left
    assert layout.store.names() == ["localhost/base:1", "localhost/worker:1"]
