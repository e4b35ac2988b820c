"""What can go wrong with a cluster, made to happen: power cuts, pulled cables, components that end.

Each fault waits until the API server sees it (`wait=False`: returns at once). Meant for tests: a fault that a
test made is undone by `heal`, which is `up` without asking what happened.
"""

from typing import Protocol

from cluster.api import Api
from cluster.control_plane import COMPONENTS, ControlPlane
from cluster.images import ImageStore
from cluster.network import Network
from cluster.node import Node
from cluster.shell import until

NOTICE_SECONDS = 60
GRACE_SECONDS = 4
"""How long the API server may take leave of those who watch; it would take as long as they do."""


class Parts(Protocol):
    """What faults are made of."""

    api: Api
    images: ImageStore
    network: Network
    control_plane: ControlPlane

    def node(self, name: str) -> Node:
        """A node, on or off."""

    def node_names(self) -> list[str]:
        """Every node."""

    def wanted_images(self) -> list[str]:
        """The images to give to a node that is switched on."""

    def wait_for_dns(self, name: str) -> None:
        """Wait for the CoreDNS of a node."""


class Faults:
    """Faults, as methods of the cluster."""

    # ---- nodes

    def crash(self: Parts, name: str, *, wait: bool = True) -> None:
        """Cut a node's power: all on it ends at once, and its peers hear nothing, no reset, no refusal."""
        self.node(name).switch_off()
        if wait:
            until(lambda: not self.api.node_ready(name), f"{name} to be NotReady", NOTICE_SECONDS)

    def start(self: Parts, name: str) -> None:
        """Switch a crashed node on again, with what was on its disk; returns when it is Ready and has DNS."""
        node = self.node(name)
        node.switch_on(self.images, self.wanted_images())
        node.join()
        self.wait_for_dns(name)

    def cut(self: Parts, name: str, *, wait: bool = True) -> None:
        """Partition a node: it and its pods go on, and nobody reaches them."""
        self.network.cut(self.node(name).name)
        if wait:
            until(lambda: not self.api.node_ready(name), f"{name} to be NotReady", NOTICE_SECONDS)

    def mend(self: Parts, name: str, *, wait: bool = True) -> None:
        """End the partition; returns when the node is Ready."""
        self.network.mend(self.node(name).name)
        if wait:
            until(lambda: self.api.node_ready(name), f"{name} to be Ready", NOTICE_SECONDS)

    # ---- the control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler

    def stop_component(self: Parts, name: str) -> None:
        """Ask a component to end, and wait until it has."""
        self.control_plane.stop(name)

    def kill_component(self: Parts, name: str) -> None:
        """End a component at once."""
        self.control_plane.stop(name, grace=0)

    def start_component(self: Parts, name: str) -> None:
        """Start a component, and wait until the API server is ready, if it is to run."""
        self.control_plane.start(name)

    def restart_apiserver(self: Parts, *, kill: bool = False) -> None:
        """End the API server, and start it again; returns when it is ready."""
        self.control_plane.stop("kube-apiserver", grace=0 if kill else GRACE_SECONDS)
        self.control_plane.start("kube-apiserver")

    def heal(self: Parts) -> None:
        """Undo every fault: components run, cables are plugged in, nodes are on and Ready."""
        for component in COMPONENTS:
            self.control_plane.start(component)
        for name in self.node_names():
            node = self.node(name)
            node.switch_on(self.images, self.wanted_images())
            node.join()
