"""etcd, API server, controller manager and scheduler: four processes in one network namespace."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cluster import cgroups, process
from cluster.api import Api
from cluster.errors import ClusterError, EndedError
from cluster.network import Network
from cluster.settings import Settings
from cluster.shell import until

MACHINE: Final = "cp"
HERE: Final = Path(__file__).parent
COMPONENTS: Final = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


class ControlPlane:
    """The processes of the control plane, each of which can be stopped, killed and started."""

    def __init__(self, settings: Settings, network: Network, api: Api) -> None:
        self._settings = settings
        self._network = network
        self._api = api

    def start(self, name: str) -> None:
        """Start a component, unless it runs; API server and etcd: returns when the API server is ready."""
        record = self._record(name)
        if not process.recorded(record):
            groups = cgroups.make(f"{self._settings.name}/{MACHINE}")
            enter = ["nsenter", f"--net={self._network.path(MACHINE)}", "--"]
            log = self._settings.log / f"{name}.log"
            process.spawn([*enter, *command(self._settings, name)], record, log, groups, child=False)
        if self.pid("kube-apiserver") or name == "kube-apiserver":
            until(lambda: self._running(name) and self._api.ready(), "the API server", timeout=90)

    def stop(self, name: str, *, grace: float = 10) -> None:
        """End a component: politely, or with grace 0 at once."""
        process.stop(self._record(name), grace=grace)

    def pid(self, name: str) -> int | None:
        """Pid of a component, if it runs."""
        return process.recorded(self._record(name))

    def _running(self, name: str) -> bool:
        if not self.pid(name):
            raise EndedError(f"{name} ended: {process.tail(self._settings.log / f'{name}.log')}")
        return True

    def _record(self, name: str) -> Path:
        if name not in COMPONENTS:
            raise ClusterError(f"{name!r} is no component: there are {', '.join(COMPONENTS)}")
        return self._settings.run / f"{name}.json"


def command(settings: Settings, name: str) -> Sequence[str]:
    """The command line of a component."""
    if name == "etcd":
        return ["etcd", *_flags(_etcd(settings))]
    if name == "kube-apiserver":
        flags = _api_server(settings)
    elif name == "kube-controller-manager":
        flags = _controller_manager(settings)
    else:
        flags = _client(settings, "scheduler")
    return [str(settings.bin / name), *_flags(flags), "--v=2"]


def _flags(values: dict[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in values.items()]


def _etcd(settings: Settings) -> dict[str, object]:
    client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    return {
        "name": "etcd",
        "data-dir": settings.state / "etcd",
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"etcd={peer}",
        "unsafe-no-fsync": "true",  # nothing here is to outlive the machine
    }


def _api_server(settings: Settings) -> dict[str, object]:
    pki, addresses = settings.pki, settings.addresses
    return {
        "etcd-servers": "http://127.0.0.1:2379",
        "bind-address": addresses.control_plane,
        "advertise-address": addresses.control_plane,
        "secure-port": 6443,
        "service-cluster-ip-range": addresses.services,
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",  # on top of the defaults, PodSecurity among them
        "allow-privileged": "true",
        "client-ca-file": pki / "ca.crt",
        "tls-cert-file": pki / "apiserver.crt",
        "tls-private-key-file": pki / "apiserver.key",
        "kubelet-certificate-authority": pki / "ca.crt",
        "kubelet-client-certificate": pki / "apiserver-kubelet.crt",
        "kubelet-client-key": pki / "apiserver-kubelet.key",
        "kubelet-preferred-address-types": "InternalIP",
        "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
        "service-account-key-file": pki / "service-accounts.key",
        "service-account-signing-key-file": pki / "service-accounts.key",
        "requestheader-client-ca-file": pki / "front-proxy-ca.crt",
        "requestheader-allowed-names": "front-proxy",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-username-headers": "X-Remote-User",
        "proxy-client-cert-file": pki / "front-proxy.crt",
        "proxy-client-key-file": pki / "front-proxy.key",
        "profiling": "false",
        # Who of the service accounts wrote what: the figures of bench/cluster are counted from it.
        "audit-policy-file": HERE / "config" / "audit.yaml",
        "audit-log-path": settings.log / "audit.log",
        "audit-log-maxsize": 100,
        "audit-log-maxbackup": 2,
    }


def _client(settings: Settings, identity: str) -> dict[str, object]:
    """Flags of those who only talk to the API server. There is one of each: nobody to elect."""
    kubeconfig = settings.pki / f"{identity}.kubeconfig"
    return {
        "kubeconfig": kubeconfig,
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "bind-address": "127.0.0.1",
        "leader-elect": "false",
    }


def _controller_manager(settings: Settings) -> dict[str, object]:
    pki, clocks = settings.pki, settings.clocks
    return _client(settings, "controller-manager") | {
        "use-service-account-credentials": "true",
        "service-account-private-key-file": pki / "service-accounts.key",
        "root-ca-file": pki / "ca.crt",
        "cluster-signing-cert-file": pki / "ca.crt",
        "cluster-signing-key-file": pki / "ca.key",
        "service-cluster-ip-range": settings.addresses.services,
        "node-monitor-period": f"{clocks.monitor_seconds}s",
        "node-monitor-grace-period": f"{clocks.grace_seconds}s",
    }
