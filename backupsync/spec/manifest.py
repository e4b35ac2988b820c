"""Reading a manifest: YAML in, a checked `BackupSyncJob` or every problem at once out."""

from pathlib import Path

from backupsync.spec.document import DocumentError, Problem, parse, read_text
from backupsync.spec.job import BackupSyncJob

__all__ = ["ManifestError", "Problem", "load_manifest", "parse_manifest"]


class ManifestError(DocumentError):
    """A manifest that cannot be run; `problems` names every reason."""


def load_manifest(path: Path) -> BackupSyncJob:
    """Read the manifest at `path`. Raises ManifestError with every problem in it."""
    return parse_manifest(read_text(path, ManifestError), str(path))


def parse_manifest(text: str, source: str = "manifest") -> BackupSyncJob:
    """Check the YAML `text`; `source` names it in errors. Raises ManifestError with every problem in it."""
    return parse(text, source, BackupSyncJob, ManifestError)
