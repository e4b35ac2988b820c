"""The versions that pyproject.toml promises are those that `make test-all` tries."""

import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
LINTERS = {Requirement(text).name.lower() for text in EXTRAS["lint"]}
CLUSTER = {Requirement(text).name for text in EXTRAS["operator"]}
"""Their lowest version is the one of the development environment: the lowest row goes without them."""


def promised() -> dict[str, str]:
    """Return the lower bound of every dependency, "" where there is none."""
    texts = [*PROJECT["dependencies"], *chain.from_iterable(EXTRAS.values())]
    found = map(Requirement, texts)
    return {
        canonicalize_name(requirement.name): str(requirement.specifier).removeprefix(">=")
        for requirement in found
        if requirement.name != PROJECT["name"]
    }


def pinned(file: str) -> dict[str, str]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / file).read_text().splitlines())
    pairs = (line.split("==") for line in lines if line)
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.mark.parametrize("name", sorted(set(promised()) - LINTERS))
def test_the_lowest_version_promised_is_the_lowest_version_tried(name):
    file = "constraints.txt" if name in CLUSTER else "constraints-lowest.txt"
    tried = pinned(file).get(name)
    assert tried is not None, f"{file} lacks {name}: add the version pyproject.toml promises"
    assert Requirement(f"{name}=={promised()[name]}").specifier.contains(tried)


@pytest.mark.parametrize("name", sorted(promised()))
def test_the_development_environment_pins_every_dependency(name):
    assert name in pinned("constraints.txt")


def test_every_python_promised_is_tried():
    matrix = (ROOT / "tests" / "matrix.py").read_text()
    prefix = "Programming Language :: Python :: 3."
    promised = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if c.startswith(prefix)]
    assert promised == ["3.11", "3.12", "3.13"]
    assert all(f'("{version}", "{version}", "constraints.txt", FULL)' in matrix for version in promised)
