"""The shape of a user's templates, as far as ours is put around it; the rest is the API server's to judge."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from backupsync.lifecycle.types import Role
from backupsync.spec import BackupSyncJob

_MAPPINGS: Final = ("securityContext", "resources")
_LISTS: Final = ("env", "ports", "volumeMounts")


def template_problems(job: BackupSyncJob) -> Iterator[str]:
    """Yield what in the templates of `job` has the wrong shape, each with its field and what it must be."""
    for role in ("worker", "aggregator"):
        yield from _pod_template(f"spec.{role}.template", template_of(job, role))
    claim = job.spec.checkpoint.volume_claim_template or {}
    yield from _metadata("spec.checkpoint.volumeClaimTemplate.metadata", claim.get("metadata"))
    yield from _mapping("spec.checkpoint.volumeClaimTemplate.spec", claim.get("spec"))


def template_of(job: BackupSyncJob, role: Role) -> Mapping[str, Any]:
    """The pod template of a role; empty where the manifest has none."""
    spec = job.spec
    return (spec.worker if role == "worker" else spec.aggregator).template or {}


def container_of(job: BackupSyncJob, role: Role) -> Mapping[str, Any]:
    """The template's container of a role; empty where it names none."""
    containers = (template_of(job, role).get("spec") or {}).get("containers") or ()
    found: Mapping[str, Any] = next((c for c in containers if c.get("name") == role), {})
    return found


def _pod_template(at: str, template: Mapping[str, Any]) -> Iterator[str]:
    yield from _metadata(f"{at}.metadata", template.get("metadata"))
    spec = template.get("spec")
    yield from _mapping(f"{at}.spec", spec)
    if not isinstance(spec, Mapping):
        return
    yield from _mapping(f"{at}.spec.securityContext", spec.get("securityContext"))
    yield from _list(f"{at}.spec.volumes", spec.get("volumes"))
    yield from _list(f"{at}.spec.containers", spec.get("containers"))
    containers = spec.get("containers")
    for index, container in enumerate(containers if isinstance(containers, list) else ()):
        if isinstance(container, Mapping):
            yield from _container(f"{at}.spec.containers[{index}]", container)


def _container(at: str, container: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(container.get("name"), str):
        yield f"{at}.name: is required, and must be a string"
    if not isinstance(container.get("image", ""), str | None):
        yield f"{at}.image = {container['image']!r}: must be a string"
    for key in _LISTS:
        yield from _list(f"{at}.{key}", container.get(key))
    for key in _MAPPINGS:
        yield from _mapping(f"{at}.{key}", container.get(key))
    resources = container.get("resources")
    if isinstance(resources, Mapping):
        for key in ("limits", "requests"):
            yield from _mapping(f"{at}.resources.{key}", resources.get(key))


def _metadata(at: str, metadata: Any) -> Iterator[str]:
    yield from _mapping(at, metadata)
    if not isinstance(metadata, Mapping):
        return
    for key in ("labels", "annotations"):
        marks = metadata.get(key)
        yield from _mapping(f"{at}.{key}", marks)
        if isinstance(marks, Mapping):
            wrong = (name for name, value in marks.items() if not isinstance(value, str))
            yield from (f"{at}.{key}.{name} = {marks[name]!r}: must be a string: quote it" for name in wrong)


def _mapping(at: str, value: Any) -> Iterator[str]:
    if value is not None and not isinstance(value, Mapping):
        yield f"{at}: must be a mapping"


def _list(at: str, value: Any) -> Iterator[str]:
    if value is None:
        return
    if not isinstance(value, list):
        yield f"{at}: must be a list"
        return
    yield from (
        f"{at}[{i}]: must be a mapping" for i, item in enumerate(value) if not isinstance(item, Mapping)
    )
