"""Reading a manifest: YAML in, a checked `BackupSyncJob` or every problem at once out.

The file may hold other Kubernetes objects beside the job, such as the ConfigMap with its program: one file
for `kubectl apply` and for `backupsync run`, which has no use for them.
"""

from pathlib import Path
from typing import Any, Final, NamedTuple

from backupsync.spec.document import DocumentError, Problem, check, read_text
from backupsync.spec.job import BackupSyncJob
from backupsync.spec.yaml_subset import YamlProblem, load_documents

__all__ = [
    "ManifestError",
    "ManifestFile",
    "Problem",
    "check_manifest",
    "load_manifest",
    "parse_manifest",
    "parse_manifest_file",
]

_KIND: Final = "BackupSyncJob"


class ManifestError(DocumentError):
    """A manifest that cannot be run; `problems` names every reason."""


def load_manifest(path: Path) -> BackupSyncJob:
    """Read the manifest at `path`. Raises ManifestError with every problem in it."""
    return parse_manifest(read_text(path, ManifestError), str(path))


class ManifestFile(NamedTuple):
    """Everything in a manifest's file."""

    job: BackupSyncJob
    document: dict[str, Any]
    """The job as it was written, with no default filled in."""
    others: tuple[dict[str, Any], ...]
    """The other Kubernetes objects, in their order."""


def parse_manifest(text: str, source: str = "manifest") -> BackupSyncJob:
    """Check the YAML `text`; `source` names it in errors. Raises ManifestError with every problem in it."""
    return parse_manifest_file(text, source).job


def parse_manifest_file(text: str, source: str = "manifest") -> ManifestFile:
    """Check the one job in the YAML `text`, and tell the other objects from it.

    Raises ManifestError: with every problem of the job; where there is no job, or more than one; where a
    document beside it is no Kubernetes object.
    """
    try:
        documents = load_documents(text, source)
    except YamlProblem as cause:
        raise ManifestError(source, [Problem("yaml", "", str(cause))]) from cause
    document = _the_job(documents, source) if len(documents) > 1 else (documents or [None])[0]
    job = check(document, source, BackupSyncJob, ManifestError)
    return ManifestFile(job, document, tuple(other for other in documents if other is not document))


def _the_job(documents: list[Any], source: str) -> Any:
    """Return the document that is a job. Raises ManifestError unless it is one, among Kubernetes objects."""
    strange = [
        Problem(f"document {number}", "", "must be a Kubernetes object: a mapping with apiVersion and kind")
        for number, document in enumerate(documents, 1)
        if not (isinstance(document, dict) and {"apiVersion", "kind"} <= document.keys())
    ]
    if strange:
        raise ManifestError(source, strange)
    jobs = [document for document in documents if document["kind"] == _KIND]
    if len(jobs) == 1:
        return jobs[0]
    if jobs:
        remedy = f"{len(jobs)} are of kind {_KIND}; give each a file of its own"
    else:
        kinds = ", ".join(str(document["kind"]) for document in documents)
        remedy = f"none of them ({kinds}) is of kind {_KIND}"
    raise ManifestError(source, [Problem("documents", "", remedy)])


def check_manifest(document: Any, source: str = "manifest") -> BackupSyncJob:
    """Check plain data, such as an API server holds. Raises ManifestError with every problem in it."""
    return check(document, source, BackupSyncJob, ManifestError)
