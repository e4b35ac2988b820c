"""Packing a user's program into a ConfigMap, and mounting it where the worker image looks for it.

Pure but for reading the files. A program that is larger than a ConfigMap may be belongs into an image.
"""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from backupsync.errors import BackupSyncError
from backupsync.kube import names
from backupsync.spec import ProgramSpec

MAX_BYTES: Final = 1024 * 1024
"""Most bytes that the API server takes in one ConfigMap."""
MANAGER: Final = "backupsync-cli"
"""Who manages such a ConfigMap, by its label."""
_VOLUME: Final = "program"
_IMAGE_REMEDY: Final = "build an image from the worker image instead (see docs/how-to/use-on-a-cluster.md)"


def find_program(manifest: Path, program: ProgramSpec) -> Path | None:
    """Return the file or package beside the manifest that `spec.program` names, None where there is none."""
    folder = manifest.parent
    if program.script is not None:
        script = folder / program.script
        inside = script.is_file() and script.resolve().is_relative_to(folder.resolve())
        return script if inside else None
    head = (program.entrypoint or "").partition(":")[0].partition(".")[0]
    for path in (folder / head, folder / f"{head}.py"):
        if (path.is_dir() and any(path.glob("**/*.py"))) or path.is_file():
            return path
    return None


def read_files(path: Path, base: Path | None = None) -> dict[str, bytes]:
    """Return the files of a program by the path at which the worker will see them.

    A file, or every file of a directory; paths are relative to `base` (by default the directory itself, or
    the file's). Hidden files and caches are left out. Raises BackupSyncError for none, or too much.
    """
    if not path.exists():
        raise BackupSyncError(f"--program {path}: there is no such file or directory")
    root = base or (path if path.is_dir() else path.parent)
    found = {file.relative_to(root).as_posix(): file for file in sorted(_files(path))}
    if not found:
        raise BackupSyncError(f"--program {path}: holds no file")
    try:
        _refuse_large(path, {name: file.stat().st_size for name, file in found.items()})
        return {name: file.read_bytes() for name, file in found.items()}
    except OSError as error:
        raise BackupSyncError(f"--program {error.filename}: cannot be read: {error.strerror}") from error


def config_map(job: str, namespace: str, files: dict[str, bytes]) -> dict[str, Any]:
    """Return the ConfigMap `JOB-program` of these files."""
    text: dict[str, str] = {}
    binary: dict[str, str] = {}
    for path, key in keys_of(files).items():
        try:
            text[key] = files[path].decode("utf-8")
        except UnicodeDecodeError:
            binary[key] = base64.b64encode(files[path]).decode("ascii")
    labels = {
        "app.kubernetes.io/name": "backupsync",
        "app.kubernetes.io/instance": job,
        "app.kubernetes.io/part-of": "backupsync",
        "app.kubernetes.io/component": "program",
        names.MANAGED_BY_LABEL: MANAGER,
        names.JOB_LABEL: job,
    }
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": names.program_name(job), "namespace": namespace, "labels": labels},
        "data": text,
    }
    return document | {"binaryData": binary} if binary else document


def keys_of(files: dict[str, bytes]) -> dict[str, str]:
    """Return path → key: keys of a ConfigMap hold no slash, and only some characters."""
    keys: dict[str, str] = {}
    for path in files:
        plain = "".join(c if c.isascii() and (c.isalnum() or c in "-._") else "_" for c in path)
        key, again = plain, 1
        while key in keys.values():
            again += 1
            key = f"{plain}.{again}"
        keys[path] = key
    return keys


def mounts_at(template: dict[str, Any] | None) -> bool:
    """Whether a worker template mounts something at /program, or below."""
    under = names.PROGRAM_DIRECTORY
    mounted = (str(m.get("mountPath", "")).rstrip("/") for m in _worker(template).get("volumeMounts") or [])
    return any(path == under or path.startswith(f"{under}/") for path in mounted)


def mounts_program(template: dict[str, Any] | None) -> bool:
    """Whether a worker template brings its own program: a mount at /program, or an image of its own."""
    return "image" in _worker(template) or mounts_at(template)


def with_program(job: dict[str, Any], files: dict[str, bytes]) -> dict[str, Any]:
    """Return the manifest with `JOB-program` mounted at /program in its workers; the rest stays as it is."""
    name = job["metadata"]["name"]
    spec = dict(job["spec"])
    worker = dict(spec.get("worker") or {})
    template = dict(worker.get("template") or {})
    pod = dict(template.get("spec") or {})
    containers = [dict(container) for container in pod.get("containers") or []]
    ours = next((c for c in containers if c.get("name") == "worker"), None)
    if ours is None:
        ours = {"name": "worker"}
        containers.append(ours)
    mount = {"name": _VOLUME, "mountPath": names.PROGRAM_DIRECTORY, "readOnly": True}
    ours["volumeMounts"] = [*(ours.get("volumeMounts") or []), mount]
    items = [{"key": key, "path": path} for path, key in keys_of(files).items()]
    volume = {"name": _VOLUME, "configMap": {"name": names.program_name(name), "items": items}}
    taken = [v for v in pod.get("volumes") or [] if v.get("name") == _VOLUME]
    if taken:
        raise BackupSyncError(
            f"spec.worker.template.spec.volumes: the name {_VOLUME!r} is needed for the program that is "
            "packed; rename that volume, or mount the program yourself and say --no-program"
        )
    pod |= {"containers": containers, "volumes": [*(pod.get("volumes") or []), volume]}
    spec["worker"] = worker | {"template": template | {"spec": pod}}
    return job | {"spec": spec}


def _worker(template: dict[str, Any] | None) -> dict[str, Any]:
    containers = ((template or {}).get("spec") or {}).get("containers") or []
    found = (c for c in containers if isinstance(c, dict) and c.get("name") == "worker")
    return next(found, {})


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for file in path.rglob("*"):
        parts = file.relative_to(path).parts
        hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
        if file.is_file() and not hidden and file.suffix != ".pyc":
            yield file


def _refuse_large(path: Path, sizes: dict[str, int]) -> None:
    total = sum(sizes.values())
    if total <= MAX_BYTES:
        return
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:3]
    said = ", ".join(f"{name} ({size:,} bytes)" for name, size in largest)
    raise BackupSyncError(
        f"--program {path}: {total:,} bytes, but a ConfigMap holds {MAX_BYTES:,} at most; largest: {said}; "
        f"name less by --program, or {_IMAGE_REMEDY}"
    )
