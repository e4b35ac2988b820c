"""The API server in a few requests, as its administrator: enough to wait on, and quicker than kubectl."""

import http.client
import json
import ssl
from typing import Any

from cluster.errors import ClusterError
from cluster.settings import Settings


class Api:
    """Raw requests to the API server."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._context: ssl.SSLContext | None = None

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            pki = self._settings.pki
            self._context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
            self._context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        return self._context

    def request(self, method: str, path: str, timeout: float = 10) -> tuple[int, bytes]:
        """Status code and body; OSError while nobody answers."""
        connection = http.client.HTTPSConnection(
            self._settings.addresses.control_plane, 6443, context=self._tls(), timeout=timeout
        )
        try:
            connection.request(method, path, headers={"Accept": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise ClusterError(f"{method} {path}: {error!r}") from error
        finally:
            connection.close()

    def ready(self) -> bool:
        """Whether the API server says that it is ready."""
        return self.request("GET", "/readyz", timeout=3)[0] == http.HTTPStatus.OK

    def get(self, path: str) -> dict[str, Any] | None:
        """An object or a list; None if there is none."""
        status, body = self.request("GET", path)
        if status == http.HTTPStatus.NOT_FOUND:
            return None
        if status != http.HTTPStatus.OK:
            raise ClusterError(f"GET {path}: {status} {body[:300]!r}")
        found: dict[str, Any] = json.loads(body)
        return found

    def delete(self, path: str) -> None:
        """Delete an object, if it is there."""
        status, body = self.request("DELETE", path)
        if status not in (http.HTTPStatus.OK, http.HTTPStatus.ACCEPTED, http.HTTPStatus.NOT_FOUND):
            raise ClusterError(f"DELETE {path}: {status} {body[:300]!r}")

    def node_ready(self, name: str) -> bool:
        """Whether a node exists and is Ready."""
        return _is_ready(self.get(f"/api/v1/nodes/{name}") or {})

    def dns_ready(self, node: str) -> bool:
        """Whether the CoreDNS of a node is Ready."""
        here = f"labelSelector=k8s-app%3Dkube-dns&fieldSelector=spec.nodeName%3D{node}"
        found = self.get(f"/api/v1/namespaces/kube-system/pods?{here}") or {}
        return any(_is_ready(pod) for pod in found.get("items", []))


def _is_ready(item: dict[str, Any]) -> bool:
    conditions = item.get("status", {}).get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
