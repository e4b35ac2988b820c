"""The chart as files: its CRD, its values. What needs helm renders it."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm import Helm

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "backupsync"
BUILT = ROOT / ".cluster" / "bin" / "helm"


@pytest.fixture(scope="session")
def chart() -> Path:
    return CHART


@pytest.fixture(scope="session")
def crd() -> dict[str, Any]:
    return yaml.safe_load((CHART / "files" / "crd.yaml").read_text())


@pytest.fixture(scope="session")
def schema(crd) -> dict[str, Any]:
    """The schema of the only version."""
    (version,) = crd["spec"]["versions"]
    return version["schema"]["openAPIV3Schema"]


@pytest.fixture(scope="session")
def values() -> dict[str, Any]:
    return yaml.safe_load((CHART / "values.yaml").read_text())


@pytest.fixture(scope="session")
def helm() -> Helm:
    """Renders the chart. Without a helm binary its tests are skipped, and fail where REQUIRE_HELM is set."""
    binary = os.environ.get("HELM") or shutil.which("helm") or shutil.which(str(BUILT))
    if binary is None:
        said = "no helm: set HELM, put it on the PATH, or build it (`make cluster`)"
        (pytest.fail if os.environ.get("REQUIRE_HELM") else pytest.skip)(said)
    return Helm(Path(binary), CHART)
