"""PersistentVolumes: directories that all nodes share. A static pool; what is claimed is retained."""

import json
import shutil
from pathlib import Path
from typing import Any, Final

from cluster.settings import SHARED_DIRECTORY, Settings

CLASS: Final = "e2e-shared"


def volume(name: str) -> dict[str, Any]:
    """A volume that any number of pods on any node may write to."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "storageClassName": CLASS,
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": f"{SHARED_DIRECTORY}/{name}", "type": "Directory"},
        },
    }


def directory(settings: Settings, name: str) -> Path:
    """Host's side of a volume."""
    return settings.shared / name


def manifest(settings: Settings, names: list[str]) -> str:
    """The volumes as one document for `kubectl apply`; makes their directories, open to every user id."""
    for name in names:
        place = directory(settings, name)
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(0o777)  # the kubelet applies no fsGroup to a hostPath
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [volume(name) for name in names]})


def wipe(settings: Settings, name: str) -> None:
    """Delete what is in a volume."""
    shutil.rmtree(directory(settings, name), ignore_errors=True)
