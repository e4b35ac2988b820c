"""The one place that speaks HTTP with an API server: kubeconfig in, plain dicts out, domain errors.

Objects travel as plain dicts: the client's models refuse fields that they do not know, and a user's pod
template may hold such. `kubernetes` is imported on the first connection, so that nothing else pays for it.
"""

import copy
import json
import os
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from backupsync.cluster.errors import ClusterError, Unreachable, answer_of, error_of, unreachable

Object = dict[str, Any]
Query = Sequence[tuple[str, str]]

JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"
"""Server-side apply; JSON is YAML."""
FIELD_MANAGER: Final = "backupsync-cli"

_CONNECT_SECONDS: Final = 10.0
_CONNECTIONS: Final = 80
"""Kept open at most: more than the logs that are followed at once."""
_SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Connection:
    """A kubeconfig context (or, within a pod, its service account), and requests to its API server."""

    def __init__(
        self,
        *,
        context: str | None = None,
        kubeconfig: str | Path | None = None,
        namespace: str | None = None,
        timeout: float = 30.0,
    ) -> None:
        """Find the cluster: by `kubeconfig`, else $KUBECONFIG, else ~/.kube/config, else this pod's account.

        `context` is the current one by default, `namespace` the context's; `timeout` is the longest silence
        of the API server, in seconds. Raises ClusterError; no request is made yet.
        """
        try:
            import urllib3  # noqa: PLC0415
            from kubernetes import client  # noqa: PLC0415
        except ModuleNotFoundError as error:
            if error.name not in ("kubernetes", "urllib3"):
                raise
            raise ClusterError(
                "the cluster's client is not installed: pip install 'backupsync[cluster]' "
                "(or '.[cluster]' in a clone)"
            ) from None
        self.timeout = timeout
        configuration = client.Configuration()
        # One try: whoever waits for an API server to come back does so knowingly, in `wait` and `logs`.
        configuration.retries = False
        self.context, default = _configure(configuration, context, kubeconfig)
        self.namespace = namespace or default
        self.host: str = configuration.host
        self._configuration = configuration
        configuration.connection_pool_maxsize = _CONNECTIONS
        configuration.keep_alive = True  # a followed log may be silent for hours, and its connection cut
        if not configuration.verify_ssl:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # the kubeconfig wants it so
        self._client: Any = client.ApiClient(configuration)
        self._client.user_agent = FIELD_MANAGER

    def within(self, namespace: str) -> "Connection":
        """Return the same connection to another namespace."""
        other = copy.copy(self)
        other.namespace = namespace
        return other

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def request(
        self,
        method: str,
        path: str,
        what: str,
        *,
        query: Query = (),
        body: Mapping[str, Any] | None = None,
        content_type: str = JSON,
    ) -> Object:
        """Return the JSON answer; `what` names the object in errors. Raises ClusterError's kinds."""
        response = self._send(method, path, query, body, content_type, self.timeout)
        with self._reading():
            data: bytes = response.read()
        if not 200 <= response.status <= 299:
            raise error_of(answer_of(response.status, data), what)
        try:
            found: Object = json.loads(data)
        except ValueError as error:
            raise ClusterError(f"{what}: {self.host} is no Kubernetes API server: {data[:80]!r}") from error
        return found

    @contextmanager
    def stream(
        self, path: str, what: str, *, query: Query = (), silence: float | None = None
    ) -> Iterator[Iterator[bytes]]:
        """Lend an endless answer as an iterator of lines; `silence` is the longest one, in seconds."""
        response = self._send("GET", path, query, None, JSON, silence)
        if not 200 <= response.status <= 299:
            with self._reading():
                data = response.read()
            raise error_of(answer_of(response.status, data), what)
        try:
            yield self._lines(response.response)
        finally:
            response.response.close()

    def websocket(self, path: str, what: str, *, query: Query = ()) -> Any:
        """Open a `websocket.WebSocket` of the subprotocol v4.channel.k8s.io. Raises ClusterError's kinds."""
        from kubernetes.stream import ws_client  # noqa: PLC0415
        from websocket import WebSocketBadStatusException, WebSocketException  # noqa: PLC0415

        _, url, headers, _, _ = self._prepare("GET", path, query, None, JSON)
        sockets: Any = ws_client
        headers = {**headers, "sec-websocket-protocol": "v4.channel.k8s.io"}
        try:
            socket = sockets.create_websocket(self._configuration, sockets.get_websocket_url(url), headers)
        except WebSocketBadStatusException as error:
            body = error.resp_body or str(error).encode()
            raise error_of(answer_of(error.status_code, body), what) from error
        except (WebSocketException, OSError, ssl.SSLError) as error:
            raise unreachable(self.host, error) from error
        socket.settimeout(self.timeout)
        return socket

    def _prepare(
        self, method: str, path: str, query: Query, body: Mapping[str, Any] | None, content_type: str
    ) -> Any:
        headers = {"Accept": JSON}
        if body is not None:
            headers["Content-Type"] = content_type
        return self._client.param_serialize(
            method,
            path,
            query_params=list(query),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )

    def _send(
        self,
        method: str,
        path: str,
        query: Query,
        body: Mapping[str, Any] | None,
        content_type: str,
        silence: float | None,
    ) -> Any:
        _, url, headers, sent, _ = self._prepare(method, path, query, body, content_type)
        with self._reading():
            return self._client.call_api(
                method, url, headers, sent, _request_timeout=(_CONNECT_SECONDS, silence)
            )

    def _lines(self, response: Any) -> Iterator[bytes]:
        rest = b""
        with self._reading():
            for piece in response.stream(64 * 1024, decode_content=True):
                *lines, rest = (rest + piece).split(b"\n")
                yield from lines
        if rest:
            yield rest

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn what the transport raises into our errors."""
        from kubernetes.client.exceptions import ApiException  # noqa: PLC0415
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        try:
            yield
        except (HTTPError, OSError) as error:
            raise unreachable(self.host, error) from error
        except ApiException as error:
            raise Unreachable(f"{self.host}: {error.reason}") from error


def _configure(configuration: Any, context: str | None, kubeconfig: str | Path | None) -> tuple[str, str]:
    """Fill the configuration in; return the context's name and its namespace. Raises ClusterError."""
    import kubernetes.config  # noqa: PLC0415

    config: Any = kubernetes.config
    source = str(kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config")
    paths = [Path(part).expanduser() for part in source.split(os.pathsep) if part]
    if not any(path.is_file() for path in paths):
        if context is None and kubeconfig is None and (_SERVICE_ACCOUNT / "token").is_file():
            return _in_cluster(configuration)
        raise ClusterError(
            f"kubeconfig {source}: there is no such file; name one by --kubeconfig FILE or $KUBECONFIG"
        )
    merged = os.pathsep.join(str(path) for path in paths)
    try:
        contexts, active = config.list_kube_config_contexts(merged)
        found = active if context is None else next((c for c in contexts if c["name"] == context), None)
        if found is None:
            names = ", ".join(c["name"] for c in contexts) or "none"
            raise ClusterError(f"kubeconfig {source}: there is no context {context!r}; there are: {names}")
        config.load_kube_config(merged, context=found["name"], client_configuration=configuration)
    except (config.ConfigException, KeyError, TypeError) as error:
        raise ClusterError(f"kubeconfig {source}: cannot be used: {error}") from error
    return str(found["name"]), str(found["context"].get("namespace") or "default")


def _in_cluster(configuration: Any) -> tuple[str, str]:
    import kubernetes.config  # noqa: PLC0415

    config: Any = kubernetes.config
    try:
        config.load_incluster_config(client_configuration=configuration)
        namespace = (_SERVICE_ACCOUNT / "namespace").read_text(encoding="ascii").strip()
    except (config.ConfigException, OSError) as error:
        raise ClusterError(f"this pod's service account cannot be used: {error}") from error
    return "in-cluster", namespace
