"""`python3 -m images`: build the three images, and say how long each took and how large it is.

Variables of the environment, which `make images NAME=value` sets:
  REGISTRY       where the images are pushed; without it they stay here, as localhost/backupsync-...
  TAG            their tag; the project's version without it
  BUILDER        docker, podman or buildah; the first that works without it
  PYTHON_IMAGE   the base of all three (see the Dockerfiles). Without it: the Dockerfiles' own, or, where
                 buildah and mmdebstrap are there, bases made from Debian packages, with torch for the CPU
  TORCH_IMAGE    another base for worker and aggregator, one that brings torch
  EXTRAS         extras of the project in the worker's image; "worker" leaves out what the examples need
  SOURCE         address of the source, for the images' labels
  PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_CERT: as pip takes them
Where the project's own cluster runs, its nodes are given the images.
"""

import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from cluster import Cluster
from cluster.errors import ClusterError
from images import bases
from images.tool import Tool, ToolError

REPOSITORY: Final = Path(__file__).resolve().parents[2]
FOLDERS: Final = {"operator": "operator", "aggregator": "aggregator_image", "worker": "worker_image"}
_PASSED_ON: Final = ("SOURCE", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT")


class Base(NamedTuple):
    """What an image is made on, and what it is made in."""

    python: str
    build: str


def main(environment: Mapping[str, str] = os.environ) -> int:
    """Build all; return the exit code."""
    try:
        tool = Tool.found(environment.get("BUILDER", ""))
        names = build(tool, environment)
        if environment.get("REGISTRY"):
            for name in names:
                with timed(f"push {name}"):
                    tool.push(name)
        else:
            load(names)
    except (ToolError, ClusterError) as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    return 0


def build(tool: Tool, environment: Mapping[str, str]) -> list[str]:
    """Build the images; return their names. Raises ToolError."""
    version = project_version()
    registry, tag = environment.get("REGISTRY") or "localhost", environment.get("TAG") or version
    common = {name: environment[name] for name in _PASSED_ON if environment.get(name)}
    common |= {"VERSION": version, "REVISION": revision()}
    names = []
    for role, folder in FOLDERS.items():
        name = f"{registry}/backupsync-{role}:{tag}"
        arguments = common | base_arguments(tool, role, environment)
        if role == "worker" and environment.get("EXTRAS"):
            arguments["EXTRAS"] = environment["EXTRAS"]
        with timed(name):
            tool.build(REPOSITORY / folder / "Dockerfile", REPOSITORY, name, arguments)
        print(f"  {tool.size(name)}")
        names.append(name)
    return names


def base_arguments(tool: Tool, role: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the build arguments that choose the base image of `role`, which is made where need be."""
    python, torch = environment.get("PYTHON_IMAGE"), environment.get("TORCH_IMAGE")
    if role != "operator" and (torch or python):
        return {"PYTHON_IMAGE": torch or python or ""}
    if python:
        return {"PYTHON_IMAGE": python}
    if tool.name != "buildah" or not bases.can_be_made():
        return {}
    for base in (bases.PYTHON, bases.TORCH) if role == "operator" else (bases.TORCH,):
        if not tool.has(base):
            with timed(base):
                bases.make(tool, base)
    if role == "operator":
        return {"PYTHON_IMAGE": bases.PYTHON, "BUILD_IMAGE": bases.TORCH}
    return {"PYTHON_IMAGE": bases.TORCH}


def load(names: list[str]) -> None:
    """Give the images to every node of the project's own cluster, if that runs. Raises ClusterError."""
    try:
        cluster = Cluster.running()
    except ClusterError:
        print("the project's own cluster does not run: no node is given the images")
        return
    for name in names:
        with timed(f"load {name}"):
            cluster.load(name)


def project_version() -> str:
    """Version of the project."""
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    return str(tomllib.loads(text)["project"]["version"])


def revision() -> str:
    """Commit that is checked out, marked where the tree differs from it; "unknown" outside git."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Say how long something took."""
    began = time.monotonic()
    yield
    print(f"{time.monotonic() - began:7.1f} s  {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
