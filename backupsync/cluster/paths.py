"""Paths of the Kubernetes API, each written once."""

from typing import Final
from urllib.parse import quote

from backupsync.kube import names

JOBS: Final = f"/apis/{names.GROUP}/{names.VERSION}"


def jobs(namespace: str | None, name: str = "", sub: str = "") -> str:
    """Path of a namespace's jobs (None: of all namespaces), of one job, or of its subresource."""
    return _path(JOBS, namespace, names.PLURAL, name, sub)


def core(namespace: str | None, plural: str, name: str = "", sub: str = "") -> str:
    """Path of a core resource, such as pods, events or configmaps."""
    return _path("/api/v1", namespace, plural, name, sub)


def of_kind(api_version: str, plural: str, namespace: str | None, name: str) -> str:
    """Path of an object of any kind, whose plural discovery told."""
    return _path(discovery(api_version), namespace, plural, name, "")


def discovery(api_version: str) -> str:
    """Path under which the API server lists the resources of a group and version."""
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _path(prefix: str, namespace: str | None, plural: str, name: str, sub: str) -> str:
    parts = [prefix, *(["namespaces", quote(namespace, safe="")] if namespace else []), plural]
    return "/".join([*parts, *(quote(part, safe="") for part in (name, sub) if part)])
