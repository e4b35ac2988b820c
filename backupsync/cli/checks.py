"""Everything that can be found wrong with a manifest before it runs."""

from collections.abc import Callable
from pathlib import Path

from backupsync.spec import BackupSyncJob, ManifestError, Problem, load_manifest


def check_everything(manifest: Path, ask_torch: Callable[[BackupSyncJob], list[Problem]]) -> BackupSyncJob:
    """Read the manifest and check what its model cannot know: the script, the optimizer, the schedule.

    Raises ManifestError with every problem at once.
    """
    job = load_manifest(manifest)
    problems = [*_program_problems(job, manifest), *ask_torch(job)]
    if problems:
        raise ManifestError(str(manifest), problems)
    return job


def _program_problems(job: BackupSyncJob, manifest: Path) -> list[Problem]:
    script = job.spec.program.script
    if script is None or (manifest.parent / script).is_file():
        return []
    remedy = f"no such file in {manifest.parent.absolute()}; paths are relative to the manifest"
    return [Problem("spec.program.script", repr(script), remedy)]
