"""The wires: one network namespace per machine, a switch in another, nothing that leads out of this host.

    host bs89 ──┐
    ns bs89-cp eth0 ──┤ br0 in ns bs89-router, which also routes to the pods of every node
    ns bs89-node1 eth0 ──┘

A machine knows its neighbours and sends the rest of 10.BLOCK.0.0/16 to the router; there is no default route.
"""

from pathlib import Path

from cluster.settings import Settings, hardware_address
from cluster.shell import run

HERE = Path("/run/netns")
HOST_PORT = "host"


class Network:
    """The switch and the cables of one cluster."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._addresses = settings.addresses
        self._router = self.namespace("router")

    def namespace(self, machine: str) -> str:
        """Name of the network namespace of a machine."""
        return f"{self._settings.name}-{machine}"

    def path(self, machine: str) -> Path:
        """The namespace as a file, for nsenter."""
        return HERE / self.namespace(machine)

    def exists(self, machine: str) -> bool:
        """Whether a machine has its namespace."""
        return self.path(machine).exists()

    def namespaces(self) -> list[str]:
        """Every namespace of this cluster, known or left behind."""
        return sorted(path.name for path in HERE.glob(f"{self._settings.name}-*"))

    def up(self) -> None:
        """The switch, and the cable to this host."""
        if not self.exists("router"):
            run(["ip", "netns", "add", self._router])
        inside = ["ip", "netns", "exec", self._router, "sysctl", "-qw"]
        run([*inside, "net.ipv4.ip_forward=1", "net.ipv4.conf.all.send_redirects=0"])
        run([*inside, "net.ipv4.conf.default.send_redirects=0"])
        self._ip("router", "link", "set", "lo", "up")
        if not self._has("router", "br0"):
            self._ip("router", "link", "add", "br0", "type", "bridge")
            self._ip("router", "link", "set", "br0", "address", hardware_address(self._addresses.router))
            self._ip("router", "addr", "add", f"{self._addresses.router}/24", "dev", "br0")
        self._ip("router", "link", "set", "br0", "up")
        # A Service address that no rule catches must be refused, not sent in circles.
        self._ip("router", "route", "replace", "unreachable", self._addresses.services)
        if not self._has("router", HOST_PORT):
            name = self._settings.name
            self._cable(HOST_PORT, name, None)
            self._address(None, name, self._addresses.host)

    def attach(self, machine: str, address: str, pods: str | None = None) -> None:
        """Give a machine its namespace, its cable and its address; tell the router where its pods are."""
        if not self.exists(machine):
            run(["ip", "netns", "add", self.namespace(machine)])
        forward = ["net.ipv4.ip_forward=1"]
        run(["ip", "netns", "exec", self.namespace(machine), "sysctl", "-qw", *forward])
        bridged = "net.bridge.bridge-nf-call-iptables=1"  # pod to Service to pod on one node
        run(["ip", "netns", "exec", self.namespace(machine), "sysctl", "-qw", bridged], check=False)
        self._ip(machine, "link", "set", "lo", "up")
        if not self._has("router", machine):
            self._cable(machine, "eth0", machine)
            self._address(machine, "eth0", address)
        self.mend(machine)
        if pods:
            self._ip("router", "route", "replace", pods, "via", address)

    def detach(self, machine: str) -> None:
        """Pull the cable for good; the namespace goes with the last process in it."""
        self._ip("router", "link", "del", machine, check=False)
        run(["ip", "netns", "del", self.namespace(machine)], check=False)

    def cut(self, machine: str) -> None:
        """Pull the cable: what runs on the machine goes on, and nobody reaches it."""
        self._ip("router", "link", "set", machine, "down")

    def mend(self, machine: str) -> None:
        """Plug the cable in again."""
        self._ip("router", "link", "set", machine, "up")

    def down(self) -> None:
        """Delete every namespace: the cables, also the host's end, go with them."""
        run(["ip", "link", "del", self._settings.name], check=False)
        for namespace in self.namespaces():
            run(["ip", "netns", "del", namespace])

    def _cable(self, port: str, end: str, machine: str | None) -> None:
        """A pair of interfaces: `port` on the switch, `end` in the machine, or on the host."""
        target = ["netns", self.namespace(machine)] if machine else ["netns", "1"]
        self._ip("router", "link", "add", port, "type", "veth", "peer", "name", end, *target)
        self._ip("router", "link", "set", port, "master", "br0", "up")

    def _address(self, machine: str | None, interface: str, address: str) -> None:
        self._ip(machine, "link", "set", interface, "address", hardware_address(address), "up")
        self._ip(machine, "addr", "add", f"{address}/24", "dev", interface)
        self._ip(machine, "route", "add", self._addresses.everything, "via", self._addresses.router)

    def _has(self, machine: str, interface: str) -> bool:
        return bool(self._ip(machine, "-o", "link", "show", interface, check=False))

    def _ip(self, machine: str | None, *words: str, check: bool = True) -> str:
        where = ["-n", self.namespace(machine)] if machine else []
        return run(["ip", *where, *words], check=check)
