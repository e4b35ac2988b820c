"""The API server by plain HTTP through `kubectl proxy`: any kubeconfig works, and bodies are plain dicts."""

import http.client
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

from backupsync.kube import names

Object = dict[str, Any]

KINDS: Mapping[str, tuple[str, str]] = {
    "job": (f"apis/{names.GROUP}/{names.VERSION}", names.PLURAL),
    "configmap": ("api/v1", "configmaps"),
    "claim": ("api/v1", "persistentvolumeclaims"),
    "event": ("api/v1", "events"),
    "namespace": ("api/v1", "namespaces"),
    "node": ("api/v1", "nodes"),
    "pod": ("api/v1", "pods"),
    "secret": ("api/v1", "secrets"),
    "service": ("api/v1", "services"),
    "serviceaccount": ("api/v1", "serviceaccounts"),
    "volume": ("api/v1", "persistentvolumes"),
    "budget": ("apis/policy/v1", "poddisruptionbudgets"),
    "deployment": ("apis/apps/v1", "deployments"),
    "lease": ("apis/coordination.k8s.io/v1", "leases"),
}
CLUSTER_WIDE = frozenset({"namespace", "node", "volume"})
MERGE = "application/merge-patch+json"
_AWAY = frozenset({429, 500, 502, 503, 504})


class ApiError(Exception):
    """The API server refused: `code` is the HTTP status, `reason` the API's own word."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code, self.reason, self.message = code, reason, message


class Unavailable(Exception):  # noqa: N818 -- a state, which passes
    """Nobody answered, or something on the way did: ask again."""


def name_of(obj: Object) -> str:
    """Return the name of an object."""
    return str(obj["metadata"]["name"])


def path_of(kind: str, namespace: str | None, name: str = "", tail: str = "") -> str:
    """Return the path of an object, or of the list where `name` is empty."""
    group, plural = KINDS[kind]
    where = "" if kind in CLUSTER_WIDE or namespace is None else f"/namespaces/{namespace}"
    rest = "".join(f"/{part}" for part in (name, tail) if part)
    return f"/{group}{where}/{plural}{rest}"


class Api:
    """One `kubectl proxy`, and verbs over it. Raises ApiError and Unavailable."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        command = ["kubectl", "--kubeconfig", str(kubeconfig), "proxy", "--port=0"]
        self._proxy = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._proxy.stdout is not None
        said = self._proxy.stdout.readline()
        if ":" not in said:
            raise Unavailable(f"kubectl proxy did not start with {kubeconfig}: {said!r}")
        self._port = int(said.rpartition(":")[2])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._proxy.terminate()
        self._proxy.wait()
        if self._proxy.stdout is not None:
            self._proxy.stdout.close()

    def raw(
        self, method: str, path: str, body: Any = None, kind: str = "application/json", timeout: float = 30
    ) -> bytes:
        """Send one request and return the body of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=timeout)
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, path, body=data, headers={"Content-Type": kind})
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"{method} {path}: {error}") from error
        finally:
            connection.close()
        if answer.status < 400:
            return content
        raise _failure(answer.status, content)

    def get(self, kind: str, namespace: str | None, name: str) -> Object:
        """Return one object."""
        return _decode(self.raw("GET", path_of(kind, namespace, name)))

    def find(self, kind: str, namespace: str | None, name: str) -> Object | None:
        """Return one object, or None where there is none."""
        try:
            return self.get(kind, namespace, name)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def list(self, kind: str, namespace: str | None = None, selector: str = "") -> list[Object]:
        """Return all objects of a kind, those that `selector` picks."""
        query = f"?{urlencode({'labelSelector': selector})}" if selector else ""
        items: list[Object] = _decode(self.raw("GET", path_of(kind, namespace) + query))["items"]
        return items

    def create(self, kind: str, namespace: str | None, body: Object, *, dry_run: bool = False) -> Object:
        """Create an object."""
        query = "?dryRun=All" if dry_run else ""
        return _decode(self.raw("POST", path_of(kind, namespace) + query, body))

    def patch(self, kind: str, namespace: str | None, name: str, body: Any, tail: str = "") -> Object:
        """Change an object, or one of its subresources, by a JSON merge patch."""
        return _decode(self.raw("PATCH", path_of(kind, namespace, name, tail), body, MERGE))

    def delete(self, kind: str, namespace: str | None, name: str, *, grace: int | None = None) -> None:
        """Delete an object; one that is gone already is no error. `grace` 0 deletes by force."""
        options: Object = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            self.raw("DELETE", path_of(kind, namespace, name), options)
        except ApiError as error:
            if error.code != 404:
                raise

    def pod_page(self, namespace: str, pod: str, port: int, page: str) -> bytes:
        """GET a page of a pod through the API server."""
        return self.raw("GET", path_of("pod", namespace, f"http:{pod}:{port}", f"proxy/{page}"))

    def kubectl(self, *arguments: str, check: bool = True, text: str | None = None) -> str:
        """Run kubectl as a user would and return what it says; `text` is its standard input."""
        done = subprocess.run(
            ["kubectl", "--kubeconfig", str(self.kubeconfig), *arguments],
            capture_output=True,
            text=True,
            input=text,
            check=False,
        )
        if check and done.returncode:
            raise ApiError(done.returncode, "kubectl", f"{' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout + done.stderr


def _decode(content: bytes) -> Object:
    decoded: Object = json.loads(content)
    return decoded


def _failure(code: int, content: bytes) -> Exception:
    try:
        said = json.loads(content)
        reason, message = said.get("reason", ""), said.get("message", "")
    except (ValueError, AttributeError):
        reason, message = "", content.decode(errors="replace")[:500]
    # A refused eviction is a 429 too, and a verdict: it names its budget as the cause.
    away = code in _AWAY and "disruption budget" not in message
    return Unavailable(f"{code} {reason}: {message}") if away else ApiError(code, reason, message)
