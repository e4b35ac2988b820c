"""A node: a machine made of namespaces, with containerd, kubelet and kube-proxy on it.

Its process 1 waits in its own mount and pid namespaces (boot.sh); to end it is to switch the machine off.
Its /var is a directory of the cluster's state, so what is on its "disk" is there after a crash.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Final

from cluster import cgroups, pki, process
from cluster.api import Api
from cluster.disk import Disk
from cluster.errors import ClusterError, EndedError
from cluster.images import COREDNS, PAUSE, ImageStore
from cluster.network import Network
from cluster.settings import DOMAIN, SHARED_DIRECTORY, Settings, node_index
from cluster.shell import feed, run, until

HERE: Final = Path(__file__).parent
KUBERNETES: Final = "/var/lib/kubernetes"
DAEMONS: Final = ("containerd", "kubelet", "kube-proxy")


def values(settings: Settings, name: str) -> dict[str, str]:
    """What the files under config/ and manifests/ leave open."""
    index, addresses, clocks = node_index(name), settings.addresses, settings.clocks
    return {
        "NODE": name,
        "ADDRESS": addresses.node(index),
        "PODS": addresses.pods_of(index),
        "GATEWAY": addresses.gateway_of(index),
        "ALL_PODS": addresses.pods,
        "DNS": addresses.dns,
        "DOMAIN": DOMAIN,
        "CGROUP": f"{settings.name}/{name}",
        "PAUSE_IMAGE": PAUSE,
        "COREDNS_IMAGE": COREDNS,
        "LEASE_SECONDS": str(clocks.lease_seconds),
        "STATUS_SECONDS": str(clocks.status_seconds),
    }


def render(file: Path, values: Mapping[str, str]) -> str:
    """A file with every $NAME filled in; a KeyError if one is not known."""
    return Template(file.read_text()).substitute(values)


def targets(listing: str) -> dict[str, str]:
    """Image to digest of its manifest, of what `ctr images ls` says."""
    return {line.split()[0]: line.split()[2] for line in listing.splitlines()[1:]}


def dangling(target: Mapping[str, str]) -> list[str]:
    """Images that have no name any more.

    containerd gives each image that a kubelet may use its digest as a second name, and keeps that when the
    first moves on. Nobody would ever delete such an image: the kubelet's own collection is off.
    """
    named = {digest for name, digest in target.items() if not name.startswith("sha256:")}
    return [name for name, digest in target.items() if digest not in named]


class Node:
    """One node of a cluster, by name: node1, node2, ..."""

    def __init__(self, settings: Settings, name: str, network: Network, api: Api) -> None:
        self.name = name
        self._settings = settings
        self._network = network
        self._api = api
        index = node_index(name)
        self.address = settings.addresses.node(index)
        self.pods = settings.addresses.pods_of(index)
        self.var = settings.state / "nodes" / name / "var"

    @property
    def pid(self) -> int | None:
        """Process 1 of the node, if it is on."""
        return process.recorded(self._record("init"))

    def switch_on(self, images: ImageStore, wanted: Sequence[str]) -> None:
        """Boot, unless it is on: wires, namespaces, containerd with its images. Needs no API server."""
        self._network.attach(self.name, self.address, self.pods)
        if not self.pid:
            self._clear()
            if not (disk := self.var / "lib" / "containerd").exists():
                Disk(self._settings, images).clone(disk)
            self._configure()
            self._boot()
        self._daemon("containerd", ["containerd", "--config", f"{KUBERNETES}/containerd.toml"])
        until(
            lambda: self._running("containerd") and self.run("ctr", "version", timeout=5),
            f"containerd of {self.name}",
        )
        there = targets(self.run("ctr", "-n", "k8s.io", "images", "ls"))
        for image in wanted:
            if there.get(image) != images.blobs(image)[0]:
                self.load(images, image)

    def join(self) -> None:
        """Start what talks to the API server, and wait until the node is Ready."""
        kubelet = [
            "--config",
            f"{KUBERNETES}/kubelet.yaml",
            "--kubeconfig",
            f"{KUBERNETES}/kubelet.kubeconfig",
        ]
        kubelet += ["--hostname-override", self.name, "--node-ip", self.address, "--v=2"]
        self._daemon("kubelet", [self._settings.bin / "kubelet", *kubelet])
        proxy = ["--config", f"{KUBERNETES}/kube-proxy.yaml", "--v=2"]
        self._daemon("kube-proxy", [self._settings.bin / "kube-proxy", *proxy])
        until(
            lambda: self._running("kubelet") and self._api.node_ready(self.name),
            f"{self.name} to be Ready (see {self._log('kubelet')})",
        )

    def switch_off(self) -> None:
        """A power cut: nobody on it can say goodbye, not even by closing a connection."""
        self._network.detach(self.name)
        process.stop(self._record("init"), grace=0)
        for daemon in DAEMONS:
            self._record(daemon).unlink(missing_ok=True)

    def remove(self) -> None:
        """Switch it off and throw it away."""
        self.switch_off()
        self._clear()
        shutil.rmtree(self.var.parent, ignore_errors=True)

    def load(self, images: ImageStore, image: str) -> None:
        """Import an image: the blobs that its containerd lacks."""
        there = set(self.run("ctr", "-n", "k8s.io", "content", "ls", "-q").split())
        command = [*self._enter(), "ctr", "-n", "k8s.io", "images", "import", "-"]
        feed(command, lambda pipe: images.write_archive({image: image}, there, pipe))
        if left := dangling(targets(self.run("ctr", "-n", "k8s.io", "images", "ls"))):
            self.run("ctr", "-n", "k8s.io", "images", "rm", *left)

    def unload(self, images: ImageStore, image: str) -> None:
        """Delete an image, also under the digest by which the kubelet knows it."""
        names = [image, images.blobs(image)[1]]
        self.run("ctr", "-n", "k8s.io", "images", "rm", "--sync", *names, timeout=300)

    def run(self, *command: str, check: bool = True, timeout: float = 120) -> str:
        """Output of a command on the node."""
        return run([*self._enter(), *command], check=check, timeout=timeout)

    def stop_daemon(self, name: str, *, grace: float = 10) -> None:
        """End containerd, kubelet or kube-proxy; `switch_on` and `join` start it again. Pods go on."""
        process.stop(self._record(name), grace=grace)

    def _record(self, what: str) -> Path:
        return self._settings.run / f"{self.name}.{what}.json"

    def _groups(self) -> list[Path]:
        return cgroups.make(f"{self._settings.name}/{self.name}/system")

    def _clear(self) -> None:
        """Remove what pods of the last boot left in the control groups."""
        cgroups.remove(f"{self._settings.name}/{self.name}")

    def _configure(self) -> None:
        place = self.var / KUBERNETES.removeprefix("/var/")
        (place / "cni").mkdir(parents=True, exist_ok=True)
        (place / "resolv.conf").write_text("search .\n")
        filled = values(self._settings, self.name)
        for file in ("containerd.toml", "kubelet.yaml", "kube-proxy.yaml"):
            (place / file).write_text(render(HERE / "config" / file, filled))
        (place / "cni" / "10-pods.conflist").write_text(render(HERE / "config" / "cni.conflist", filled))
        identity = pki.node(self._settings, self.name, self.address)
        for suffix in ("crt", "key"):
            shutil.copy(self._settings.pki / f"{identity}.{suffix}", place / f"node.{suffix}")
        shutil.copy(self._settings.pki / "ca.crt", place / "ca.crt")
        pki.kubeconfig(self._settings, identity, place / "kubelet.kubeconfig")
        shutil.copy(self._settings.pki / "kube-proxy.kubeconfig", place / "kube-proxy.kubeconfig")

    def _boot(self) -> None:
        self._settings.shared.mkdir(parents=True, exist_ok=True)
        self._settings.shared.chmod(0o777)
        apart = ["unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"]
        boot: list[str | Path] = [
            "sh",
            HERE / "boot.sh",
            self.name,
            self.var,
            self._settings.shared,
            SHARED_DIRECTORY,
        ]
        enter = ["nsenter", f"--net={self._network.path(self.name)}"]
        pid = self._spawn("init", [*enter, *apart, *boot])
        until(
            lambda: self._running("init") and Path(f"/proc/{pid}/root/run/booted").exists(),
            f"{self.name} to boot (see {self._log('init')})",
            30,
        )

    def _daemon(self, name: str, command: Sequence[str | Path]) -> None:
        if not process.recorded(self._record(name)):
            self._spawn(name, [*self._enter(), *command])

    def _running(self, name: str) -> bool:
        if not process.recorded(self._record(name)):
            raise EndedError(f"{name} of {self.name} ended: {process.tail(self._log(name))}")
        return True

    def _spawn(self, name: str, command: Sequence[str | Path]) -> int:
        return process.spawn(command, self._record(name), self._log(name), self._groups(), child=True)

    def _log(self, name: str) -> Path:
        return self._settings.log / f"{self.name}.{name}.log"

    def _enter(self) -> list[str]:
        pid = self.pid
        if not pid:
            raise ClusterError(f"{self.name} is switched off")
        return ["nsenter", f"--target={pid}", "--mount", "--uts", "--net", "--pid", "--"]
