"""Checkpoint volumes that outlive their pods, and that every node can mount.

On the project's own cluster all nodes share one disk, so a hostPath volume is as good as NFS. Elsewhere the
default StorageClass provides.
"""

import shutil
from pathlib import Path
from typing import NamedTuple

from backupsync.kube import names
from support.api import Api, Object
from support.waiting import wait


class Disk(NamedTuple):
    """A directory that all nodes share."""

    here: Path
    """Its path on this machine."""
    there: Path
    """Its path on every node."""


class Volumes:
    """Makes volumes on a disk (None: leaves it to the default StorageClass), and clears up after them."""

    def __init__(self, api: Api, namespace: str, disk: Disk | None) -> None:
        self._api, self._namespace, self._disk = api, namespace, disk
        self._made: list[str] = []

    def template(self, job: str) -> Object:
        """Return the `volumeClaimTemplate` of a job."""
        size = {"requests": {"storage": "64Mi"}}
        if self._disk is None:
            return {"spec": {"accessModes": ["ReadWriteOnce"], "resources": size}}
        name = self._bound(job)
        spec = {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "",
            "volumeName": name,
            "resources": size,
        }
        return {"spec": spec}

    @property
    def reachable(self) -> bool:
        """Whether the volumes can be read from here."""
        return self._disk is not None

    def directory(self, job: str) -> Path:
        """The directory of a job's volume, on this machine."""
        assert self._disk is not None, "the nodes' disks are out of reach"
        return self._disk.here / self._namespace / job

    def clean(self) -> None:
        """Delete volumes and what is on them."""
        for name in self._made:
            self._api.delete("volume", None, name)
        if self._disk is not None:
            shutil.rmtree(self._disk.here / self._namespace, ignore_errors=True)

    def _bound(self, job: str) -> str:
        """A volume on the disk that the nodes share, bound to the job's claim before there is one."""
        assert self._disk is not None
        name, directory = f"{self._namespace}-{job}", self.directory(job)
        directory.mkdir(parents=True)
        directory.chmod(0o777)  # hostPath volumes ignore fsGroup
        claim = {"namespace": self._namespace, "name": names.claim_name(job)}
        body = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "64Mi"},
                "accessModes": ["ReadWriteMany"],
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": claim,
                "hostPath": {"path": str(self._disk.there / self._namespace / job)},
            },
        }
        self._api.create("volume", None, body)
        self._made.append(name)
        # A claim that comes before the volume is known waits for the next look at it, 15 seconds later.
        wait(lambda: self._api.get("volume", None, name)["status"].get("phase") == "Available")
        return name
