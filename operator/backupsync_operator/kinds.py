"""The kinds of objects the operator reads and writes, and the paths of the API server they live at."""

from typing import Final, NamedTuple

from backupsync.kube import names


class Kind(NamedTuple):
    """A kind of object, by what its path is made of."""

    group: str
    version: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`apiVersion` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str = "", subresource: str = "") -> str:
        """Path of one object, or of the collection where `name` is empty."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        place = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        parts = [part for part in (self.plural, name, subresource) if part]
        return "/".join([root + place, *parts])


JOBS: Final = Kind(names.GROUP, names.VERSION, names.PLURAL)
PODS: Final = Kind("", "v1", "pods")
SERVICES: Final = Kind("", "v1", "services")
SECRETS: Final = Kind("", "v1", "secrets")
CLAIMS: Final = Kind("", "v1", "persistentvolumeclaims")
BUDGETS: Final = Kind("policy", "v1", "poddisruptionbudgets")
NODES: Final = Kind("", "v1", "nodes", namespaced=False)
EVENTS: Final = Kind("", "v1", "events")
LEASES: Final = Kind("coordination.k8s.io", "v1", "leases")

CHILDREN: Final = (PODS, SERVICES, CLAIMS, BUDGETS)
"""What is watched beside the jobs, by the owner's label."""


def kind_of(document: dict[str, object]) -> Kind:
    """The kind of a rendered object. Raises KeyError for one that is none of ours."""
    return _BY_KIND[str(document["kind"])]


_BY_KIND: Final = {
    "BackupSyncJob": JOBS,
    "Pod": PODS,
    "Service": SERVICES,
    "Secret": SECRETS,
    "PersistentVolumeClaim": CLAIMS,
    "PodDisruptionBudget": BUDGETS,
    "Node": NODES,
    "Event": EVENTS,
    "Lease": LEASES,
}
