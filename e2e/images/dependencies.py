"""What an image has to install beside its base: `dependencies.py EXTRAS DIRECTORY`, run while it is built.

Reads pyproject.toml and constraints.txt in the current directory and writes `requirements.txt` and
`constraints.txt` into DIRECTORY. What is heavy and fits the machine (torch for CPU or for a CUDA version,
NumPy beside it) is left to the base image where that brings it: its own version stands, pinned or not.
"""

import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pip._vendor.packaging.requirements import Requirement  # an image build has pip, and little else
from pip._vendor.packaging.utils import canonicalize_name

LEFT_TO_THE_BASE = frozenset({"numpy", "torch"})


def wanted(project: dict[str, Any], extras: list[str]) -> Iterator[Requirement]:
    """Yield what the project and its `extras` require. Raises KeyError for an extra that it has not."""
    for extra in ("", *extras):
        lines = project["optional-dependencies"][extra] if extra else project["dependencies"]
        yield from map(Requirement, lines)


def brought(requirement: Requirement) -> bool:
    """Whether the base image brings it. Raises SystemExit where it does in a version that is too old."""
    name = canonicalize_name(requirement.name)
    if name not in LEFT_TO_THE_BASE:
        return False
    try:
        found = version(name)
    except PackageNotFoundError:
        return False
    if not requirement.specifier.contains(found, prereleases=True):
        sys.exit(
            f"the base image has {name} {found}, BackupSync needs {requirement}: take a newer PYTHON_IMAGE"
        )
    return True


def main(extras: str, directory: str) -> None:
    """Write both files."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = list(wanted(project, extras.split(",")))
    there = {canonicalize_name(r.name) for r in requirements if brought(r)}
    pins = Path("constraints.txt").read_text(encoding="utf-8").splitlines()
    kept = [pin for pin in pins if canonicalize_name(pin.partition("==")[0].strip()) not in there]
    missing = [str(r) for r in requirements if canonicalize_name(r.name) not in there]
    for name, lines in (("requirements.txt", missing), ("constraints.txt", kept)):
        (Path(directory) / name).write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
