"""`python3 -m cluster`: the cluster from the command line."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster.clock import Clock
from cluster.cluster import Cluster
from cluster.collect import collect
from cluster.errors import ClusterError

NODE_COMMANDS = {
    "crash": "cut a node's power",
    "start": "switch a crashed node on again",
    "cut": "partition a node from all others",
    "mend": "end the partition",
    "delete-node": "throw a node away",
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python3 -m cluster", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start the cluster, or repair it; prints KUBECONFIG=...")
    up.add_argument("--nodes", type=int, default=2, help="how many nodes a new cluster gets (2)")
    commands.add_parser("down", help="end and remove everything but programs, images and logs")
    commands.add_parser("status", help="which process runs")
    commands.add_parser("env", help="print what a shell needs: eval $(python3 -m cluster env)")
    commands.add_parser("add-node", help="add a node; prints its name")
    for name, text in NODE_COMMANDS.items():
        commands.add_parser(name, help=text).add_argument("node")
    commands.add_parser("heal", help="undo every fault")
    load = commands.add_parser("load", help="give images of buildah's storage to every node")
    load.add_argument("image", nargs="+")
    unload = commands.add_parser("unload", help="take images from every node")
    unload.add_argument("image", nargs="+")
    commands.add_parser("volumes", help="add PersistentVolumes").add_argument("count", type=int)
    keep = commands.add_parser("collect", help="keep what there is to know about a namespace")
    keep.add_argument("namespace")
    keep.add_argument("directory", type=Path)
    run = commands.add_parser("run", help="run a command on a node")
    run.add_argument("node")
    run.add_argument("words", nargs=argparse.REMAINDER)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    options = parser().parse_args(arguments)
    try:
        _act(Cluster.here() if options.command in ("up", "down", "status") else Cluster.running(), options)
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    return 0


def _act(cluster: Cluster, options: argparse.Namespace) -> None:
    if os.geteuid() != 0:
        raise ClusterError("a cluster makes namespaces, mounts and control groups: run as root (sudo)")
    name = options.command
    if name == "up":
        _up(cluster, options.nodes)
    elif name in NODE_COMMANDS:
        getattr(cluster, name.replace("-", "_"))(options.node)
    else:
        _say(ACTIONS[name](cluster, options))


def _say(said: str | None) -> None:
    if said:
        print(said.rstrip("\n"))


ACTIONS: dict[str, Callable[[Cluster, argparse.Namespace], str | None]] = {
    "down": lambda cluster, _: cluster.down(),
    "status": lambda cluster, _: cluster.status() or f"no cluster runs in {cluster.settings.home}",
    "env": lambda cluster, _: _environment(cluster),
    "add-node": lambda cluster, _: cluster.add_node(),
    "heal": lambda cluster, _: cluster.heal(),
    "load": lambda cluster, options: cluster.load(*options.image),
    "unload": lambda cluster, options: cluster.unload(*options.image),
    "volumes": lambda cluster, options: "\n".join(cluster.add_volumes(options.count)),
    "collect": lambda cluster, options: collect(cluster, options.namespace, options.directory),
    "run": lambda cluster, options: cluster.node(options.node).run(*options.words),
}


def _up(cluster: Cluster, nodes: int) -> None:
    clock = Clock()
    cluster.up(nodes, clock)
    print(clock.table(), file=sys.stderr)
    print(_environment(cluster))


def _environment(cluster: Cluster) -> str:
    return f"export KUBECONFIG={cluster.settings.kubeconfig}\nexport PATH={cluster.settings.bin}:$PATH"


if __name__ == "__main__":
    sys.exit(main())
