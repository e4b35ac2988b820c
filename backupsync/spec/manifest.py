"""Reading a manifest: YAML in, a checked `BackupSyncJob` or every problem at once out."""

from pathlib import Path
from typing import Any

from backupsync.spec.document import DocumentError, Problem, check, parse, read_text
from backupsync.spec.job import BackupSyncJob

__all__ = ["ManifestError", "Problem", "check_manifest", "load_manifest", "parse_manifest"]


class ManifestError(DocumentError):
    """A manifest that cannot be run; `problems` names every reason."""


def load_manifest(path: Path) -> BackupSyncJob:
    """Read the manifest at `path`. Raises ManifestError with every problem in it."""
    return parse_manifest(read_text(path, ManifestError), str(path))


def parse_manifest(text: str, source: str = "manifest") -> BackupSyncJob:
    """Check the YAML `text`; `source` names it in errors. Raises ManifestError with every problem in it."""
    return parse(text, source, BackupSyncJob, ManifestError)


def check_manifest(document: Any, source: str = "manifest") -> BackupSyncJob:
    """Check plain data, such as an API server holds. Raises ManifestError with every problem in it."""
    return check(document, source, BackupSyncJob, ManifestError)
