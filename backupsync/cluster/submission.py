"""What `submit` sends: the manifest as the user wrote it, the program beside it, and its other documents."""

from pathlib import Path
from typing import Any

from msgspec import Struct

from backupsync.cluster import program
from backupsync.errors import BackupSyncError
from backupsync.kube import names
from backupsync.spec import BackupSyncJob, load_manifest
from backupsync.spec.yaml_subset import load_yaml


class Submission(Struct, frozen=True, kw_only=True):
    """A manifest that is ready to be sent."""

    job: dict[str, Any]
    """The BackupSyncJob, as the user wrote it, with the program mounted."""
    program: dict[str, Any] | None
    """The ConfigMap of the program, where one is packed."""
    others: tuple[dict[str, Any], ...]
    """Other documents of the manifest, applied before the job."""
    said: str
    """Where the program comes from, in words."""

    @property
    def name(self) -> str:
        """Name of the job."""
        return str(self.job["metadata"]["name"])


def read_submission(
    manifest: Path,
    namespace: str | None,
    default_namespace: str,
    packed: Path | None = None,
    pack: bool = True,
) -> Submission:
    """Read a manifest, and pack its program. Raises BackupSyncError with everything that is wrong with it.

    `packed` is the file or directory to pack (by default what `spec.program` names, beside the manifest);
    without `pack` nothing is packed.
    """
    checked = load_manifest(manifest)
    document: dict[str, Any] = load_yaml(manifest.read_text(encoding="utf-8"), str(manifest))
    own = checked.metadata.namespace
    if namespace is not None and own is not None and own != namespace:
        raise BackupSyncError(
            f"{manifest}: metadata.namespace is {own}, but --namespace says {namespace}; name one of them"
        )
    target = namespace or own or default_namespace
    document["metadata"]["namespace"] = target
    files, said = _program(manifest, checked, packed, pack)
    if not files:
        return Submission(job=document, program=None, others=(), said=said)
    return Submission(
        job=program.with_program(document, files),
        program=program.config_map(checked.metadata.name, target, files),
        others=(),
        said=said,
    )


def _program(
    manifest: Path, job: BackupSyncJob, packed: Path | None, pack: bool
) -> tuple[dict[str, bytes], str]:
    """Return the files to pack, and where the program comes from in words."""
    own = program.mounts_program(job.spec.worker.template)
    if packed is not None:
        if own and program.mounts_at(job.spec.worker.template):
            raise BackupSyncError(
                f"--program {packed}: the manifest's worker template mounts {names.PROGRAM_DIRECTORY} "
                "itself; take one of the two away"
            )
        return _pack(job, packed, packed if packed.is_dir() else packed.parent)
    if own or not pack:
        return {}, "the worker's image, or the volumes of its template"
    found = program.find_program(manifest, job.spec.program)
    if found is None:
        wanted = job.spec.program.script or job.spec.program.entrypoint
        return {}, f"the worker's image: nothing beside the manifest is {wanted}"
    return _pack(job, found, manifest.parent)


def _pack(job: BackupSyncJob, path: Path, base: Path) -> tuple[dict[str, bytes], str]:
    files = program.read_files(path, base)
    size = sum(map(len, files.values()))
    many = f"{len(files)} files" if len(files) > 1 else next(iter(files))
    return files, f"{many} ({size:,} bytes) in ConfigMap {names.program_name(job.metadata.name)}"
