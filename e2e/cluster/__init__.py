"""A real Kubernetes on one Linux machine, for the end-to-end tests: no virtual machine, no image registry.

etcd and the control plane run in one network namespace, and every node is a small machine of its own: a
process tree in its own network, mount, pid and host-name namespaces, with its own containerd, kubelet and
kube-proxy. A virtual switch joins them; nothing is routed out of this machine. So a node can be crashed, cut
off and started again as hardware can, and taking the cluster down is ending those namespaces.

    python3 -m cluster up           # from e2e/; prints KUBECONFIG=...
    python3 -m cluster down

    from cluster import Cluster
    cluster = Cluster.running()
    cluster.crash("node2")

Needs Linux, root, Debian's packages and Go; no Python package outside the standard library.
"""

from cluster.cluster import Cluster
from cluster.errors import ClusterError

__all__ = ["Cluster", "ClusterError"]
