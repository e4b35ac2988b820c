"""What `submit` sends: the manifest as the user wrote it, the program beside it, and its other documents."""

from pathlib import Path
from typing import Any

from msgspec import Struct

from backupsync.cluster import program
from backupsync.errors import BackupSyncError
from backupsync.kube import names
from backupsync.kube.checkpoints import place_of
from backupsync.spec import BackupSyncJob, ManifestError
from backupsync.spec.document import read_text
from backupsync.spec.manifest import parse_manifest_file

_SHOWN = 5
"""Packed files that are named."""


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
    note: str = ""
    """What the user may not expect: that the model will not outlive its pod."""

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
    checked, document, others = parse_manifest_file(read_text(manifest, ManifestError), str(manifest))
    own = checked.metadata.namespace
    if namespace is not None and own is not None and own != namespace:
        raise BackupSyncError(
            f"{manifest}: metadata.namespace is {own}, but --namespace says {namespace}; name one of them"
        )
    target = namespace or own or default_namespace
    document = document | {"metadata": document["metadata"] | {"namespace": target}}
    place = place_of(checked, "UID")
    note = "" if place.durable else place.message
    files, said = _program(manifest, checked, packed, pack)
    if not files:
        return Submission(job=document, program=None, others=others, said=said, note=note)
    config_map = program.config_map(checked.metadata.name, target, files)
    _refuse_twice(manifest, config_map, others)
    return Submission(
        job=program.with_program(document, files), program=config_map, others=others, said=said, note=note
    )


def _refuse_twice(manifest: Path, config_map: dict[str, Any], others: tuple[dict[str, Any], ...]) -> None:
    name = config_map["metadata"]["name"]
    same = [o for o in others if o["kind"] == "ConfigMap" and (o.get("metadata") or {}).get("name") == name]
    if same:
        raise BackupSyncError(
            f"{manifest}: holds a ConfigMap {name} that its workers do not mount at "
            f"{names.PROGRAM_DIRECTORY}, but the program is packed into one of this name; mount it, "
            "or say --no-program"
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
    shown = ", ".join(list(files)[:_SHOWN]) + f" and {len(files) - _SHOWN} more" * (len(files) > _SHOWN)
    return files, f"{shown} ({size:,} bytes) in ConfigMap {names.program_name(job.metadata.name)}"
