"""What a cluster is made of: its place on disk, its block of addresses, its clocks. Pure.

Every name and address follows from `block`, so two clusters with different blocks can run side by side.
"""

import ipaddress
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from cluster.errors import ClusterError

REPOSITORY: Final = Path(__file__).resolve().parents[2]
SHARED_DIRECTORY: Final = "/var/lib/backupsync-e2e"
"""One directory of the host, at this path on every node: what a shared file system would be."""
DOMAIN: Final = "cluster.local"
MAX_NODES: Final = 99


@dataclass(frozen=True)
class Addresses:
    """The plan of 10.BLOCK.0.0/16: .0 machines, .64 Services, .129-.227 the pods of node 1-99."""

    block: int

    def __post_init__(self) -> None:
        if not 1 <= self.block <= 255:
            raise ClusterError(f"block is {self.block}: it is the second number of 10.BLOCK.0.0/16, 1 to 255")

    @property
    def everything(self) -> str:
        """All addresses of the cluster."""
        return f"10.{self.block}.0.0/16"

    @property
    def router(self) -> str:
        """The switch, which also routes to the pods of every node."""
        return f"10.{self.block}.0.1"

    @property
    def control_plane(self) -> str:
        """The API server."""
        return f"10.{self.block}.0.2"

    @property
    def host(self) -> str:
        """The machine itself, where the tests run."""
        return f"10.{self.block}.0.254"

    @property
    def services(self) -> str:
        """The range of cluster IPs."""
        return f"10.{self.block}.64.0/20"

    @property
    def api_service(self) -> str:
        """The Service `kubernetes`: the API server as pods see it."""
        return f"10.{self.block}.64.1"

    @property
    def dns(self) -> str:
        """The Service `kube-dns`."""
        return f"10.{self.block}.64.10"

    @property
    def pods(self) -> str:
        """The range of all pods."""
        return f"10.{self.block}.128.0/17"

    def node(self, index: int) -> str:
        """Address of a node."""
        return f"10.{self.block}.0.{100 + index}"

    def pods_of(self, index: int) -> str:
        """The range of the pods of a node."""
        return f"10.{self.block}.{128 + index}.0/24"

    def gateway_of(self, index: int) -> str:
        """Where the pods of a node find the way out of it."""
        return f"10.{self.block}.{128 + index}.1"


def hardware_address(address: str) -> str:
    """The MAC of an IP address: always the same, so that a node that comes back is not looked for in vain."""
    return "02:42:" + ":".join(f"{byte:02x}" for byte in ipaddress.IPv4Address(address).packed)


def node_index(name: str) -> int:
    """3 for `node3`."""
    digits = name.removeprefix("node")
    if not (name.startswith("node") and digits.isdecimal() and 1 <= int(digits) <= MAX_NODES):
        raise ClusterError(f"{name!r} is no node: nodes are node1 to node{MAX_NODES}")
    return int(digits)


@dataclass(frozen=True)
class Clocks:
    """How fast the cluster notices that a node is gone. Kubernetes' defaults: 40, 10, 5, 40 seconds."""

    lease_seconds: int = 4
    status_seconds: int = 2
    monitor_seconds: int = 1
    grace_seconds: int = 6


@dataclass(frozen=True)
class Settings:
    """One cluster. `home` holds its state, `cache` what survives it: programs, images."""

    home: Path
    cache: Path
    block: int = 89
    clocks: Clocks = field(default_factory=Clocks)

    @property
    def addresses(self) -> Addresses:
        """The plan of addresses."""
        return Addresses(self.block)

    @property
    def name(self) -> str:
        """Prefix of namespaces, name of the control group and of the host's network interface."""
        return f"bs{self.block}"

    @property
    def bin(self) -> Path:
        """The programs that were built: Kubernetes' own, kubectl, helm, kwok, kubeconform."""
        return self.cache / "bin"

    @property
    def images(self) -> Path:
        """The images that were loaded once, layer by layer."""
        return self.cache / "images"

    @property
    def log(self) -> Path:
        """The programs' logs; kept by `down`, emptied by the next `up`."""
        return self.home / "log"

    @property
    def state(self) -> Path:
        """Everything that `down` wipes."""
        return self.home / "state"

    @property
    def run(self) -> Path:
        """One file per process that was started."""
        return self.state / "run"

    @property
    def pki(self) -> Path:
        """Keys, certificates and kubeconfigs of the components."""
        return self.state / "pki"

    @property
    def shared(self) -> Path:
        """The host's side of SHARED_DIRECTORY."""
        return self.state / "shared"

    @property
    def kubeconfig(self) -> Path:
        """Of the cluster's administrator."""
        return self.home / "kubeconfig"

    def save(self) -> None:
        """Keep the settings with the state: later commands must not depend on their environment."""
        self.state.mkdir(parents=True, exist_ok=True)
        (self.state / "settings.json").write_text(json.dumps(asdict(self), default=str, indent=1))


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings of a new cluster: CLUSTER_HOME, CLUSTER_CACHE (by default CLUSTER_HOME), CLUSTER_BLOCK."""
    home = Path(environment.get("CLUSTER_HOME") or REPOSITORY / ".cluster").resolve()
    if any(home.is_relative_to(taken) for taken in ("/run", "/var", "/proc", "/sys", "/dev")):
        raise ClusterError(f"CLUSTER_HOME is {home}: a node has its own /run and /var, choose another place")
    block = environment.get("CLUSTER_BLOCK") or "89"
    if not block.isdecimal():
        raise ClusterError(
            f"CLUSTER_BLOCK is {block!r}: it is the second number of 10.BLOCK.0.0/16, 1 to 255"
        )
    return Settings(
        home, Path(environment.get("CLUSTER_CACHE") or home).resolve(), Addresses(int(block)).block
    )


def saved(home: Path) -> Settings | None:
    """Settings of the cluster whose state is in this place."""
    try:
        values = json.loads((home / "state" / "settings.json").read_text())
    except FileNotFoundError:
        return None
    return Settings(Path(values["home"]), Path(values["cache"]), values["block"], Clocks(**values["clocks"]))
