"""The API page is made from the CRD; a committed page that differs is out of date."""

import importlib.util
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def api_page():
    spec = importlib.util.spec_from_file_location("api_page", ROOT / "charts" / "api_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def crd(api_page):
    return yaml.safe_load(api_page.CRD.read_text())


def test_the_committed_page_is_up_to_date(api_page, crd):
    assert api_page.PAGE.read_text() == api_page.page(crd), "run `python charts/api_page.py`"


def test_every_column_and_every_field_of_status_is_there(api_page, crd):
    text = api_page.page(crd)
    (version,) = crd["spec"]["versions"]
    for column in version["additionalPrinterColumns"]:
        assert f"| {column['name']} | `{column['jsonPath']}` | {column['description']}" in text
    status = version["schema"]["openAPIV3Schema"]["properties"]["status"]
    for name in status["properties"]:
        assert f"\n| `{name}` | " in text
    assert "## `status.ranks[]`" in text


def test_every_rule_is_there_once(api_page, crd):
    lines = api_page.page(crd).splitlines()
    rows = [line for line in lines[lines.index("| field | message |") :] if line.startswith("| `spec")]
    assert len(rows) == len(set(rows)) > 20
    assert all(row.split("|")[2].strip() for row in rows)
