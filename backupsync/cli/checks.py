"""Everything that can be found wrong with a manifest before it runs."""

from pathlib import Path

from backupsync.spec import BackupSyncJob, ManifestError, Problem, load_manifest


def read_job(manifest: Path) -> BackupSyncJob:
    """Read the manifest, and look for the script it names. Raises ManifestError with every problem."""
    job = load_manifest(manifest)
    script = job.spec.program.script
    if script is not None and not (manifest.parent / script).is_file():
        remedy = f"no such file in {manifest.parent.absolute()}; paths are relative to the manifest"
        refuse(manifest, [Problem("spec.program.script", repr(script), remedy)])
    return job


def refuse(manifest: Path, problems: list[Problem]) -> None:
    """Raise ManifestError if there are problems."""
    if problems:
        raise ManifestError(str(manifest), problems)
