"""The cluster as one object: up and down, nodes, images, volumes. Every step may be repeated."""

import itertools
import json
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cluster import cgroups, pki, process, storage, tools
from cluster.api import Api
from cluster.clock import Clock
from cluster.control_plane import COMPONENTS, MACHINE, ControlPlane
from cluster.disk import Disk
from cluster.errors import ClusterError
from cluster.faults import Faults
from cluster.images import COREDNS, PAUSE, ImageStore
from cluster.network import Network
from cluster.node import HERE, Node, render, values
from cluster.settings import Settings, from_environment, node_index, saved
from cluster.shell import locked, run, until

VOLUMES: Final = 24
WATCHERS: Final = 1024
OWN_IMAGES: Final = (PAUSE, COREDNS)


def allow_watches() -> None:
    """Every node's programs watch files, and Linux allows a user only 128 watchers by default."""
    limit = Path("/proc/sys/fs/inotify/max_user_instances")
    if int(limit.read_text()) < WATCHERS:
        limit.write_text(str(WATCHERS))


class Cluster(Faults):
    """A cluster, running or not. What can go wrong with it is in `Faults`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.api = Api(settings)
        self.images = ImageStore(settings)
        self.network = Network(settings)
        self.control_plane = ControlPlane(settings, self.network, self.api)

    @classmethod
    def here(cls) -> "Cluster":
        """The cluster of this environment (CLUSTER_HOME): as it was started, or as it would be."""
        settings = from_environment()
        return cls(saved(settings.home) or settings)

    @classmethod
    def running(cls) -> "Cluster":
        """The running cluster of this environment."""
        cluster = cls.here()
        if not cluster.is_running():
            raise ClusterError(f"no cluster runs in {cluster.settings.home}: start it with `make cluster`")
        return cluster

    def is_running(self) -> bool:
        """Whether any recorded process of it lives."""
        return any(process.recorded(record) for record in self.settings.run.glob("*.json"))

    # ---- up and down

    def up(self, count: int = 2, clock: Clock | None = None, images: Sequence[str] = ()) -> None:
        """Bring up whatever is not up: programs, images, control plane, nodes, DNS, volumes.

        Images of buildah's storage that are named here come quicker to a new cluster than by `load`.
        """
        clock = clock or Clock()
        with self._alone():
            with clock.part("packages and programs"):
                tools.install_packages()
                tools.build(self.settings)
            if not self.is_running():
                self._raze()
                shutil.rmtree(self.settings.log, ignore_errors=True)
            self.settings.save()
            with clock.part("images"):
                self.images.add_own()
                self._remember(images)
                Disk(self.settings, self.images).prepare()
            with clock.part("keys and certificates"):
                pki.make(self.settings)
                pki.kubeconfig(self.settings, "admin", self.settings.kubeconfig)
            allow_watches()
            self.network.up()
            names = self.node_names() or [f"node{index + 1}" for index in range(count)]
            for name in names:  # before any is made: an `up` that is killed is to be finished by the next
                (self.settings.state / "nodes" / name).mkdir(parents=True, exist_ok=True)
            with ThreadPoolExecutor() as pool:
                nodes = [pool.submit(self._switch_on, name, clock) for name in names]
                self._start_control_plane(clock)
                for one in [pool.submit(self._join, node, clock) for node in nodes]:
                    one.result()
            with clock.part("DNS and volumes"):
                self._furnish(names[0])
                for name in names:
                    self.wait_for_dns(name)

    def down(self) -> None:
        """End and remove everything but programs, images and logs."""
        with self._alone():
            self._raze()

    def _raze(self) -> None:
        """Processes by their records, then whoever is still in our namespaces (an `up` that was killed)."""
        for name in self.node_names():
            process.stop(self.settings.run / f"{name}.init.json", grace=0)
        for record in self.settings.run.glob("*.json"):
            process.stop(record, grace=0)
        for namespace in self.network.namespaces():
            for pid in process.inhabitants(namespace):
                process.end(pid, grace=0)
        self.network.down()
        cgroups.remove(self.settings.name)
        shutil.rmtree(self.settings.state, ignore_errors=True)
        self.settings.kubeconfig.unlink(missing_ok=True)

    def _start_control_plane(self, clock: Clock) -> None:
        self.network.attach(MACHINE, self.settings.addresses.control_plane)
        for name in COMPONENTS:
            with clock.part(name):
                self.control_plane.start(name)

    def _switch_on(self, name: str, clock: Clock) -> Node:
        with clock.part(f"{name}: boot, containerd, images"):
            node = Node(self.settings, name, self.network, self.api)
            node.switch_on(self.images, self.wanted_images())
            return node

    def _join(self, node: "Future[Node]", clock: Clock) -> None:
        name = node.result().name
        with clock.part(f"{name}: Ready"):
            node.result().join()

    def _furnish(self, any_node: str) -> None:
        done = self.settings.state / "furnished"
        if not done.exists():
            filled = values(self.settings, any_node)
            self.kubectl("apply", "-f", "-", stdin=render(HERE / "manifests" / "dns.yaml", filled))
            self.kubectl("apply", "-f", HERE / "manifests" / "storage.yaml")
            self.add_volumes(VOLUMES)
            done.touch()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One change of a cluster at a time."""
        with locked(self.settings.home / "lock"):
            yield

    # ---- nodes

    def node_names(self) -> list[str]:
        """Every node that was added, on or off."""
        places = (self.settings.state / "nodes").glob("node*")
        return sorted((place.name for place in places), key=node_index)

    def node(self, name: str) -> Node:
        """A node of this cluster, on or off."""
        if name not in (names := self.node_names()):
            raise ClusterError(f"{name!r} is no node of this cluster: there are {', '.join(names) or 'none'}")
        return Node(self.settings, name, self.network, self.api)

    def add_node(self) -> str:
        """One more node, with every image that was loaded; its name, when it is Ready."""
        with self._alone():
            taken = self.node_names()
            Disk(self.settings, self.images).prepare()
            name = next(name for index in itertools.count(1) if (name := f"node{index}") not in taken)
            node = Node(self.settings, name, self.network, self.api)
            node.switch_on(self.images, self.wanted_images())
            node.join()
            self.wait_for_dns(name)
            return name

    def wait_for_dns(self, name: str) -> None:
        """Wait for the CoreDNS of a node, which serves that node alone."""
        until(lambda: self.api.dns_ready(name), f"CoreDNS on {name}", 90)

    def delete_node(self, name: str) -> None:
        """Switch a node off, throw it away, and take it out of Kubernetes."""
        with self._alone():
            self.node(name).remove()
            self.api.delete(f"/api/v1/nodes/{name}")

    # ---- images and volumes

    def load(self, *images: str) -> None:
        """Give images of buildah's storage to every node, and to the nodes that will be added."""
        with self._alone():
            self._remember(images)
            with ThreadPoolExecutor() as pool:
                for done in [pool.submit(self._load, node, images) for node in self._nodes_on()]:
                    done.result()

    def _load(self, node: Node, images: Sequence[str]) -> None:
        for image in images:  # one after the other: the next may lack nothing but its top
            node.load(self.images, image)

    def unload(self, *images: str) -> None:
        """Take images from every node that is on, and forget them."""
        with self._alone():
            for image in images:
                for node in self._nodes_on():
                    node.unload(self.images, image)
                self.images.remove(image)
            self._loaded_file.write_text(json.dumps([name for name in self.loaded() if name not in images]))

    def _nodes_on(self) -> list[Node]:
        return [node for name in self.node_names() if (node := self.node(name)).pid]

    def _remember(self, images: Sequence[str]) -> None:
        for image in images:
            self.images.add(image)
        self._loaded_file.write_text(json.dumps(list(dict.fromkeys([*self.loaded(), *images]))))

    def loaded(self) -> list[str]:
        """The images that were loaded into this cluster."""
        return list(json.loads(self._loaded_file.read_text())) if self._loaded_file.exists() else []

    def wanted_images(self) -> list[str]:
        """The images that every node is to have."""
        return [*OWN_IMAGES, *self.loaded()]

    @property
    def _loaded_file(self) -> Path:
        return self.settings.state / "images.json"

    def add_volumes(self, count: int) -> list[str]:
        """More PersistentVolumes of the class `e2e-shared`; their names."""
        taken = [int(place.name.removeprefix("e2e-")) for place in self.settings.shared.glob("e2e-*")]
        first = max(taken, default=0) + 1
        names = [f"e2e-{number}" for number in range(first, first + count)]
        self.kubectl("apply", "-f", "-", stdin=storage.manifest(self.settings, names))
        return names

    def reclaim_volumes(self) -> list[str]:
        """Empty the volumes whose claim is gone, and offer them again; their names."""
        found = (self.api.get("/api/v1/persistentvolumes") or {}).get("items", [])
        names = [item["metadata"]["name"] for item in found if item["status"].get("phase") == "Released"]
        for name in names:
            self.api.delete(f"/api/v1/persistentvolumes/{name}")
            storage.wipe(self.settings, name)
        if names:
            self.kubectl("apply", "-f", "-", stdin=storage.manifest(self.settings, names))
        return names

    # ---- looking at it

    def kubectl(self, *words: str | Path, stdin: str | None = None, check: bool = True) -> str:
        """Output of kubectl, as the cluster's administrator."""
        command = [self.settings.bin / "kubectl", f"--kubeconfig={self.settings.kubeconfig}", *words]
        return run(command, stdin=stdin, check=check)

    def status(self) -> str:
        """Which process of it runs, one line each."""
        lines = []
        for record in sorted(self.settings.run.glob("*.json")):
            pid = process.recorded(record)
            lines.append(f"  {record.stem:<24} {f'pid {pid}' if pid else 'not running'}")
        return "\n".join(lines)
