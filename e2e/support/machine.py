"""Breaking the project's own cluster: nodes, cables, processes. A foreign cluster has no such thing."""

from pathlib import Path

from cluster import Cluster
from cluster.settings import SHARED_DIRECTORY
from support.api import Api, Object, name_of
from support.operator import Operator, is_ready
from support.volumes import Disk
from support.waiting import wait


class Machine:
    """The cluster's nodes and processes; whatever was broken is mended by `mend_all`."""

    def __init__(self, api: Api, operator: Operator) -> None:
        self._api = api
        self._operator = operator
        self._cluster = Cluster.running()
        self._broken: dict[str, str] = {}

    @property
    def disk(self) -> Disk:
        """The directory that all nodes share."""
        return Disk(self._cluster.settings.shared, Path(SHARED_DIRECTORY))

    @property
    def safe(self) -> str:
        """The node that the operator in office runs on."""
        return str(self._operator.wait_until_ready()["spec"]["nodeName"])

    @property
    def victim(self) -> str:
        """The node to break: another one than the operator's."""
        safe = self.safe
        return next(name for node in self._api.list("node") if (name := name_of(node)) != safe)

    def crash(self, node: str) -> None:
        """Cut a node's power."""
        self._broken[node] = "crashed"
        self._cluster.crash(node)

    def cut(self, node: str) -> None:
        """Pull a node's cable: what runs on it goes on, and nobody reaches it."""
        self._broken[node] = "cut"
        self._cluster.cut(node)

    def mend(self, node: str) -> None:
        """Plug the cable in again; does not wait for the node to be ready."""
        self._cluster.mend(node, wait=False)

    def stop_kubelet(self, node: str) -> None:
        """End a node's kubelet; its pods go on."""
        self._broken[node] = "without kubelet"
        self._cluster.node(node).stop_daemon("kubelet", grace=0)

    def start_kubelet(self, node: str) -> None:
        """Start it again."""
        self._cluster.node(node).join()

    def is_ready(self, node: str) -> bool:
        """Whether the API server takes a node for ready."""
        return is_ready(self._api.get("node", None, node))

    def restart_api_server(self) -> None:
        """Kill the API server and start it again; returns when it serves."""
        self._broken["kube-apiserver"] = "killed"
        self._cluster.restart_apiserver(kill=True)

    def mend_all(self) -> None:
        """Mend whatever is broken, and wait until every node is ready and fit to run pods."""
        if self._broken:
            self._cluster.heal()
            self._broken.clear()
            wait(self._sound, timeout=180)

    def tag_image(self, image: str, name: str) -> None:
        """Give an image that every node has another name."""
        for node in self._api.list("node"):
            self._ctr(name_of(node), "images", "tag", image, name)

    def containers_of(self, pod: Object, node: str) -> set[str]:
        """Ids of the running containers of a pod, whether or not the API server reaches its node."""
        uid = pod["metadata"]["uid"]
        ours = f'labels."io.kubernetes.pod.uid"=={uid},labels."io.cri-containerd.kind"==container'
        known = set(self._ctr(node, "containers", "ls", "-q", ours).split())
        tasks = (line.split() for line in self._ctr(node, "tasks", "ls").splitlines()[1:])
        return {words[0] for words in tasks if words[-1] == "RUNNING"} & known

    def log_of(self, pod: Object, node: str) -> str:
        """What the containers of a pod have said, read off the node's disk."""
        script = f"cat /var/log/pods/*_{pod['metadata']['uid']}/*/*.log"
        return str(self._cluster.node(node).run("sh", "-c", script))

    def kill(self, pod: Object, container: str) -> None:
        """Kill the processes of a pod's container at once, as the kernel would."""
        node, uid = str(pod["spec"]["nodeName"]), pod["metadata"]["uid"]
        named = f'labels."io.kubernetes.pod.uid"=={uid},labels."io.kubernetes.container.name"=={container}'
        for found in self._ctr(node, "containers", "ls", "-q", named).split():
            self._ctr(node, "tasks", "kill", "--signal", "SIGKILL", found, check=False)

    def _ctr(self, node: str, *arguments: str, check: bool = True) -> str:
        return str(self._cluster.node(node).run("ctr", "-n", "k8s.io", *arguments, check=check))

    def _sound(self) -> bool:
        nodes = self._api.list("node")
        return all(is_ready(node) and not node["spec"].get("taints") for node in nodes)
