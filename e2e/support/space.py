"""A namespace of one test's own, which enforces the `restricted` Pod Security level."""

import hashlib
import re
from pathlib import Path
from typing import Any

from support.api import Api, Object, name_of
from support.job import Job
from support.manifest import PROGRAMS, job_manifest
from support.volumes import Disk, Volumes
from support.waiting import wait

SOURCES = Path(__file__).parents[1] / "programs"


class Space:
    """One namespace with e2e/programs/ in a ConfigMap, and the jobs in it."""

    def __init__(self, api: Api, name: str, disk: Disk | None) -> None:
        self.api, self.name = api, name
        self.jobs: list[Job] = []
        self.volumes = Volumes(api, name, disk)

    def make(self) -> "Space":
        """Create the namespace; returns when pods can be created in it."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted", "backupsync.dev/e2e": "true"}
        body = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": self.name, "labels": labels},
        }
        self.api.create("namespace", None, body)
        wait(lambda: self.api.find("serviceaccount", self.name, "default"))
        self.config(PROGRAMS, {path.name: path.read_text() for path in SOURCES.glob("*.py")})
        return self

    def config(self, name: str, data: dict[str, str]) -> None:
        """Create a ConfigMap."""
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
        self.api.create("configmap", self.name, body)

    def job(self, name: str) -> Job:
        """Return the handle of a job that may not exist."""
        job = Job(self.api, self.name, name)
        self.jobs.append(job)
        return job

    def start(self, name: str, manifest: Object | None = None, **sections: Any) -> Job:
        """Create a job; `sections` are merged into the defaults of the spec."""
        return self.job(name).create(manifest or job_manifest(name, **sections))

    def start_durable(self, name: str, **sections: Any) -> Job:
        """Create a job whose checkpoints outlive its pods."""
        claim = {"volumeClaimTemplate": self.volumes.template(name)}
        checkpoint = {"everyIterations": 5, **claim, **sections.pop("checkpoint", {})}
        return self.start(name, checkpoint=checkpoint, **sections)

    def clean(self) -> None:
        """Delete everything; does not wait for it."""
        for job in self.jobs:
            job.delete()
        self.api.delete("namespace", None, self.name)
        self.volumes.clean()


class Labels:
    """One label on every node, by which a test opens and closes them to its pods."""

    def __init__(self, api: Api, key: str) -> None:
        self.key = key
        self._api = api

    def set(self, value: str | None) -> None:
        """Label every node; None takes the label off."""
        for node in self._api.list("node"):
            self._api.patch("node", None, name_of(node), {"metadata": {"labels": {self.key: value}}})


def name_for(test: str) -> str:
    """Return a namespace name for a test: readable, short, and its own."""
    slug = re.sub(r"[^a-z0-9]+", "-", test.lower()).strip("-")[:40].rstrip("-")
    return f"e2e-{slug}-{hashlib.sha256(test.encode()).hexdigest()[:4]}"
