"""What an image installs beside its base: everything but what the base brings."""

import importlib.util
import shutil
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dependencies():
    """The script as the build runs it, loaded from its file."""
    spec = importlib.util.spec_from_file_location("dependencies", ROOT / "e2e/images/dependencies.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def install(dependencies, tmp_path, monkeypatch):
    """Say what would be installed: names of requirements, and of pins."""
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "wanted").mkdir()
    monkeypatch.chdir(tmp_path)

    def run(extras, base=None):
        def version(name):
            if name in (base or {}):
                return base[name]
            raise dependencies.PackageNotFoundError(name)

        monkeypatch.setattr(dependencies, "version", version)
        dependencies.main(extras, "wanted")
        required = (tmp_path / "wanted/requirements.txt").read_text().split("\n")
        pinned = (tmp_path / "wanted/constraints.txt").read_text().split("\n")
        return {Requirement(line).name for line in required if line}, {p.partition("==")[0] for p in pinned}

    return run


def test_on_a_bare_base_everything_is_installed_and_pinned(install):
    required, pinned = install("worker,examples")
    assert {"torch", "numpy", "pyzmq", "safetensors", "msgspec", "pydantic", "scikit-learn"} <= required
    assert {"torch", "numpy", "pyzmq"} <= pinned


def test_the_torch_of_the_base_stands_in_its_own_version(install):
    required, pinned = install("worker", {"torch": "2.6.0+debian", "numpy": "2.2.4"})
    assert not {"torch", "numpy"} & (required | pinned)
    assert {"pyzmq", "safetensors", "msgspec"} <= required & pinned


def test_only_the_heavy_is_left_to_the_base(install):
    required, _ = install("worker", {"msgspec": "99", "pyzmq": "99"})
    assert {"msgspec", "pyzmq"} <= required


def test_a_base_whose_torch_is_too_old_is_refused_with_a_remedy(install):
    with pytest.raises(SystemExit, match=r"the base image has torch 1\.13\.1, BackupSync needs torch>=2\.6"):
        install("worker", {"torch": "1.13.1"})


def test_the_operator_needs_no_torch_and_the_data_plane_no_client(install):
    assert "torch" not in install("operator")[0]
    assert not {"kopf", "kubernetes"} & (install("worker")[0] | install("aggregator")[0])


def test_an_extra_that_does_not_exist_is_told(install):
    with pytest.raises(KeyError, match="wrker"):
        install("wrker")
