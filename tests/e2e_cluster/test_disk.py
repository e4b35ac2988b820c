import json

import pytest

from cluster.disk import Disk
from cluster.images import ImageStore
from cluster.settings import Settings

LAYER = "io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs/usr/lib/large.so"
DATABASES = ["io.containerd.metadata.v1.bolt/meta.db", "io.containerd.snapshotter.v1.overlayfs/metadata.db"]


@pytest.fixture
def disk(tmp_path):
    for name in [LAYER, *DATABASES]:
        file = tmp_path / "disk" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    (tmp_path / "disk.json").write_text(json.dumps([]))
    settings = Settings(tmp_path, tmp_path)
    return Disk(settings, ImageStore(settings))


def inode(place, name):
    return (place / name).stat().st_ino


def test_nodes_share_layers_and_no_database(disk, tmp_path):
    nodes = [tmp_path / name / "lib" / "containerd" for name in ("node1", "node2")]
    for node in nodes:
        disk.clone(node)
    places = [tmp_path / "disk", *nodes]
    assert len({inode(place, LAYER) for place in places}) == 1
    for database in DATABASES:
        assert len({inode(place, database) for place in places}) == len(places)
        assert (nodes[0] / database).read_text() == database


def test_a_copy_that_failed_leaves_no_disk(disk, tmp_path):
    node = tmp_path / "node1" / "lib" / "containerd"
    (tmp_path / "disk" / DATABASES[1]).unlink()
    (tmp_path / "disk" / DATABASES[1]).symlink_to("nowhere.db")
    with pytest.raises(FileNotFoundError):
        disk.clone(node)
    assert not node.exists()


def test_without_a_prepared_disk_a_node_starts_with_none(disk, tmp_path):
    (tmp_path / "disk.json").unlink()
    disk.clone(tmp_path / "node1" / "lib" / "containerd")
    assert not (tmp_path / "node1" / "lib" / "containerd").exists()
