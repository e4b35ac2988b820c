"""The API server, and the only module that imports its client: raw dicts in and out, domain errors.

The client (kubernetes.aio) gives authentication and transport alone. Its models refuse fields they do not
know, and a user's pod template may hold any: so no body ever passes through them.
"""

import json
import os
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final, Literal

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

import backupsync
from backupsync.errors import BackupSyncError
from backupsync_operator.kinds import Kind

REQUEST_SECONDS: Final = 30.0
"""Longest time for one request."""
PAGE: Final = 500
"""Objects per page of a list."""
_MERGE: Final = "application/merge-patch+json"
_JSON: Final = "application/json"
_METADATA: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

__all__ = [
    "AlreadyExists",
    "Api",
    "ApiError",
    "Configuration",
    "Conflict",
    "Invalid",
    "NotFound",
    "Object",
    "Transient",
    "configuration",
    "connection_facts",
]

Object = dict[str, Any]
Count = Callable[[str, str, str], None]
"""Called with verb, plural and code of every answer."""


class ApiError(BackupSyncError):
    """The API server did not do what it was asked; the message is its own."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class NotFound(ApiError):  # noqa: N818 -- the API's own word
    """404: there is no such object."""


class AlreadyExists(ApiError):  # noqa: N818
    """409: an object of this name is there."""


class Conflict(ApiError):  # noqa: N818
    """409: the object is not as it was taken to be (resourceVersion, uid)."""


class Invalid(ApiError):  # noqa: N818
    """400, 403, 413, 422: refused, and again if sent as it is: a template, a quota, a policy, a role."""


class Transient(ApiError):  # noqa: N818
    """Anything else: no answer, too many requests, a server at fault. Trying again may help."""


class Api:
    """Requests to one API server."""

    def __init__(self, configuration: Configuration, count: Count = lambda *_: None) -> None:
        # Its own retries would hide what the queue's backoff is there for.
        configuration.retries = None
        self.configuration = configuration
        self._client = ApiClient(configuration)
        self._client.user_agent = f"backupsync-operator/{backupsync.__version__}"
        self._count = count

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()  # type: ignore[no-untyped-call]

    async def read(self, kind: Kind, namespace: str | None, name: str) -> Object:
        """Read one object. Raises ApiError."""
        return await self._request("GET", kind, kind.path(namespace, name))

    async def create(self, kind: Kind, namespace: str | None, body: Object) -> Object:
        """Create an object. Raises AlreadyExists, Invalid or another ApiError."""
        return await self._request("POST", kind, kind.path(namespace), body)

    async def replace(self, kind: Kind, namespace: str | None, body: Object) -> Object:
        """Replace an object; its resourceVersion is the condition. Raises Conflict or another ApiError."""
        return await self._request("PUT", kind, kind.path(namespace, body["metadata"]["name"]), body)

    async def patch(
        self, kind: Kind, namespace: str | None, name: str, body: Object, subresource: str = ""
    ) -> Object:
        """Apply a JSON merge patch. Raises ApiError."""
        return await self._request("PATCH", kind, kind.path(namespace, name, subresource), body, _MERGE)

    async def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        *,
        uid: str,
        grace_seconds: float | None = None,
        propagation: Literal["Background", "Foreground", "Orphan"] = "Background",
    ) -> Object:
        """Delete the object of this uid, and none that took its name. Raises NotFound, Conflict, ..."""
        body: Object = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "preconditions": {"uid": uid},
            "propagationPolicy": propagation,
        }
        if grace_seconds is not None:
            # Rounded up: 0 means by force, and no politeness ever becomes that by rounding.
            body["gracePeriodSeconds"] = -int(-grace_seconds // 1)
        return await self._request("DELETE", kind, kind.path(namespace, name), body)

    async def uids(self, kind: Kind, namespace: str | None, selector: str = "") -> set[str]:
        """List the uids of all objects of a kind, by their metadata alone. Raises ApiError."""
        return {item["metadata"]["uid"] async for item in self._metadata(kind, namespace, selector)}

    async def served(self, kind: Kind, namespace: str | None) -> bool:
        """Whether the API server knows the kind. Raises ApiError."""
        try:
            await self._request("GET", kind, kind.path(namespace), accept=_METADATA, query={"limit": "1"})
        except NotFound:
            return False
        return True

    async def _metadata(self, kind: Kind, namespace: str | None, selector: str) -> AsyncIterator[Object]:
        query = {"limit": str(PAGE)} | ({"labelSelector": selector} if selector else {})
        while True:
            page = await self._request("GET", kind, kind.path(namespace), accept=_METADATA, query=query)
            for item in page.get("items") or []:
                yield item
            token = page.get("metadata", {}).get("continue")
            if not token:
                return
            query["continue"] = token

    async def _request(
        self,
        method: str,
        kind: Kind,
        path: str,
        body: Object | None = None,
        content: str = _JSON,
        *,
        accept: str = _JSON,
        query: dict[str, str] | None = None,
    ) -> Object:
        headers = {"Accept": accept, "Content-Type": content}
        code = "none"
        try:
            prepared = await self._client.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
            response = await self._client.call_api(*prepared, _request_timeout=timeout)
            code = str(response.status)
            text = await response.read()  # type: ignore[no-untyped-call]
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            said = str(error) or type(error).__name__
            raise Transient(
                0, "NoAnswer", f"{method} {path}: the API server did not answer: {said}"
            ) from error
        finally:
            self._count(method, kind.plural, code)
        return _answer(response.status, text, f"{method} {path}")


def _answer(code: int, text: bytes, request: str) -> Object:
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if 200 <= code < 300 and isinstance(document, dict):
        return document
    status = document if isinstance(document, dict) else {}
    reason = str(status.get("reason") or "")
    message = str(status.get("message") or f"{request}: the API server answers {code}")
    raise _error_of(code, reason)(code, reason, message)


def _error_of(code: int, reason: str) -> type[ApiError]:
    if code == 404:
        return NotFound
    if code == 409:
        return AlreadyExists if reason == "AlreadyExists" else Conflict
    return Invalid if code in (400, 403, 413, 422) else Transient


async def configuration() -> Configuration:
    """The API server and who we are: from the pod, else from the kubeconfig. Raises BackupSyncError."""
    found = Configuration()
    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
            load_incluster_config(client_configuration=found)  # type: ignore[no-untyped-call]
        else:
            await load_kube_config(client_configuration=found)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError) as error:
        raise BackupSyncError(f"Kubernetes: no API server is configured: {error}") from error
    return found


def connection_facts(found: Configuration) -> dict[str, Any]:
    """The same in plain words, for the informer's own transport (`kopf.ConnectionInfo`)."""
    header = found.api_key.get("BearerToken") or found.api_key.get("authorization") or ""
    token = re.sub(r"^bearer\s+", "", header, flags=re.IGNORECASE).strip()
    facts = {
        "server": found.host,
        "ca_path": _path(found.ssl_ca_cert),
        "insecure": not found.verify_ssl,
        "token": token or None,
        "username": found.username or None,
        "password": found.password or None,
        "certificate_path": _path(found.cert_file),
        "private_key_path": _path(found.key_file),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _path(path: str | None) -> str | None:
    return str(Path(path)) if path else None
