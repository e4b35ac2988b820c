"""The chart as files: its CRD, its values. What needs helm renders it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).parents[2] / "charts" / "backupsync"


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
