"""The chart's values: documented, held by a schema, and the same in file, schema and pages."""

import json
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm import Refused

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "backupsync"
README = runpy.run_path(str(ROOT / "charts" / "readme.py"))
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
PATHS = {value.path for value in README["described"]((CHART / "values.yaml").read_text())}
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
KINDS = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


def at(path: str) -> dict[str, Any]:
    """The schema of one value."""
    found = SCHEMA
    for key in path.split("."):
        found = found["properties"][key]
    return found


def value(path: str, values: Any = VALUES) -> Any:
    for key in path.split("."):
        values = values[key]
    return values


def test_every_value_is_documented():
    assert set(README["leaves"](VALUES, PATHS)) == PATHS


@pytest.mark.parametrize("name", README["PAGES"])
def test_the_committed_page_is_up_to_date(name):
    assert (ROOT / name).read_text() == README["pages"]()[name], "run `python charts/readme.py`"


@pytest.mark.parametrize("path", sorted(PATHS))
def test_the_schema_knows_every_value_by_its_kind(path):
    told, default = at(path), value(path)
    kinds = {part["type"] for part in told.get("anyOf", [told])}
    found = KINDS[type(default)]
    assert found in kinds or (found == "integer" and "number" in kinds)


def groups(told: dict[str, Any], values: Any, path: str = ""):
    """Yield (path, schema, values) of every mapping with keys of its own."""
    if path in PATHS or not isinstance(values, dict):
        return
    yield path, told, values
    for key, inside in values.items():
        yield from groups(told["properties"][key], inside, f"{path}.{key}".lstrip("."))


def test_the_schema_knows_no_other_values_and_refuses_them():
    for path, told, values in groups(SCHEMA, VALUES):
        assert told["additionalProperties"] is False, path
        assert told["properties"].keys() - {"global"} == values.keys(), path


def test_everything_on_sets_every_value_to_something_else():
    everything = yaml.safe_load((ROOT / "tests" / "chart" / "everything.yaml").read_text())
    assert set(README["leaves"](everything, PATHS)) == PATHS
    same = {path for path in PATHS if value(path, everything) == value(path)}
    assert same == {
        "crds.enabled", "rbac.create", "rbac.aggregate", "serviceAccount.create", "image.digest",
        "worker.image.digest", "podDisruptionBudget.enabled", "metrics.service.enabled",
        "networkPolicy.operator.enabled",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replica": 2}, "additional properties 'replica' not allowed"),
        ({"replicas": "two"}, "at '/replicas': got string, want integer"),
        ({"watch": {"namespaces": ["Team_A"]}}, "at '/watch/namespaces/0'"),
        ({"image": {"digest": "abc"}}, "at '/image/digest'"),
        ({"operator": {"logFormat": "xml"}}, "at '/operator/logFormat'"),
        ({"metrics": {"podMonitor": {"renderMode": "perhaps"}}}, "at '/metrics/podMonitor/renderMode'"),
    ],
    ids=str,
)
def test_a_wrong_value_is_named(helm, values, said):
    with pytest.raises(Refused, match="values don't meet the specifications") as caught:
        helm.template(values)
    assert said in str(caught.value)


def test_chart_and_project_bear_one_version():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert chart["version"] == chart["appVersion"] == project["version"]
