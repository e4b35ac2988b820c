"""What the CRD promises a user: descriptions to read, bounds that keep it small, columns that exist."""

import re

import pytest
from schemas import nodes


@pytest.fixture(scope="module")
def everything(schema):
    return dict(nodes(schema))


def test_every_field_teaches(everything):
    dumb = {path for path, told in everything.items() if not told.get("description")}
    assert dumb == {"metadata", "metadata.name", "spec.training.optimizer.groups[].match[]"}


def test_a_status_is_bounded(everything):
    """One job is one object, and etcd takes 1.5 MiB."""
    for path, told in everything.items():
        if not path.startswith("status"):
            continue
        if told["type"] == "string":
            assert {"maxLength", "enum", "format"} & told.keys(), path
        if told["type"] == "array":
            assert told["maxItems"] <= 1000, path
            assert "x-kubernetes-list-type" in told, path


def test_conditions_are_a_map_by_type(everything):
    conditions = everything["status.conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


def test_printer_columns_and_scale_read_fields_that_exist(crd, everything):
    (version,) = crd["spec"]["versions"]
    scale = version["subresources"]["scale"]
    paths = [column["jsonPath"] for column in version["additionalPrinterColumns"]] + list(scale.values())
    known = everything.keys() | {"metadata.creationTimestamp"}
    for path in paths:
        assert re.sub(r"\[\?\(.*?\)\]", "[]", path).lstrip(".") in known, path
    assert [column["name"] for column in version["additionalPrinterColumns"]] == [
        "State", "Ready", "Workers", "Iteration", "Rate", "Slow", "Age", "Message",
    ]  # fmt: skip


def test_every_rule_says_what_is_wrong(everything):
    rules = [rule for told in everything.values() for rule in told.get("x-kubernetes-validations", [])]
    assert len(rules) > 20
    assert all(rule["message"] for rule in rules)
