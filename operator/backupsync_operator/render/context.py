"""What the objects of a job are rendered from, and the metadata they share."""

from dataclasses import dataclass, field
from typing import Any

from backupsync.kube import names
from backupsync.kube.checkpoints import Place, place_of
from backupsync.lifecycle.types import JobStatus
from backupsync.spec import BackupSyncJob
from backupsync.spec.job import API_VERSION, KIND

_NOT_COPIED = ("kubectl.kubernetes.io/", "kopf.zalando.org/", "kopf.dev/", "kueue.x-k8s.io/")
"""Metadata that would mislead on a pod: the whole manifest once more, or a queue that would gate each pod."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """The images of our two containers where the template names none, as frozen at admission."""

    worker: str
    aggregator: str


@dataclass(frozen=True, kw_only=True)
class JobContext:
    """One job, its identity on the cluster, and what was decided for it."""

    job: BackupSyncJob
    namespace: str
    uid: str
    images: Images
    pull_policy: str = "IfNotPresent"
    log_format: str = "json"
    status: JobStatus = field(default_factory=JobStatus)
    """The planner's memory as it was written: the aggregator is launched with what it desires."""

    @property
    def name(self) -> str:
        """The job's name."""
        return self.job.metadata.name

    @property
    def place(self) -> Place:
        """Where the checkpoints lie."""
        return place_of(self.job, self.uid)

    def owner(self) -> dict[str, Any]:
        """The reference by which the garbage collector removes an object with its job; it never blocks."""
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }

    def metadata(
        self, name: str, labels: dict[str, str] | None = None, *, owned: bool = True
    ) -> dict[str, Any]:
        """Metadata of one of the job's objects that no template describes."""
        made: dict[str, Any] = {
            "name": name,
            "namespace": self.namespace,
            "labels": {**names.job_labels(self.name, self.uid), **(labels or {})},
        }
        if owned:
            made["ownerReferences"] = [self.owner()]
        return made

    def inherited_labels(self) -> dict[str, str]:
        """Labels of the job that its pods carry too."""
        return _copied(self.job.metadata.labels)

    def inherited_annotations(self) -> dict[str, str]:
        """Annotations of the job that its pods carry too."""
        return _copied(self.job.metadata.annotations)


def _copied(marks: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in marks.items() if not key.startswith(_NOT_COPIED)}
