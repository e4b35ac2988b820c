"""The CRD says what the model says: one manifest, checked by the API server and by `backupsync run` alike."""

import json

import pytest
import yaml
from schemas import defaulted, facts, model_schema, nodes

from backupsync.kube.names import GROUP, PLURAL, VERSION
from backupsync.spec import parse_manifest
from backupsync.spec.job import API_VERSION, KIND

MODEL = dict(nodes(model_schema()["properties"]["spec"]))
TEMPLATES = {"checkpoint.volumeClaimTemplate", "worker.template", "aggregator.template"}
"""The model takes any mapping with these two keys; the CRD spells them out, and passes what is inside."""
OPEN = {"program.args", "training.optimizer", "training.optimizer.groups[]", "training.schedule"}
"""Where keywords of the user's own, or of torch's classes, stand."""
SMALLEST = """
apiVersion: backupsync.dev/v1alpha1
kind: BackupSyncJob
metadata: {name: smallest}
spec:
  program: {script: train.py}
  aggregation: {workers: 2}
  training: {epochs: 1, batchSize: 8, optimizer: {lr: 1}, schedule: {name: StepLR}, warmup: {examples: 8}}
"""


@pytest.fixture(scope="module")
def spec(schema):
    return dict(nodes(schema["properties"]["spec"]))


def test_the_crd_knows_the_fields_of_the_model_and_no_others(spec):
    inside = {path for path in spec if any(path.startswith(f"{t}.") for t in TEMPLATES)}
    assert inside == {f"{t}.{part}" for t in TEMPLATES for part in ("metadata", "spec")}
    assert spec.keys() - inside == MODEL.keys()


@pytest.mark.parametrize("path", MODEL)
def test_a_field_is_described_bounded_and_defaulted_alike(path, spec):
    ours, theirs = facts(MODEL[path]), facts(spec[path])
    if path in TEMPLATES:
        assert theirs.pop("names") == ["metadata", "spec"]
        assert ours.pop("names") == []
    assert theirs == ours
    assert theirs["description"] or path == "training.optimizer.groups[].match[]"


@pytest.mark.parametrize("path", MODEL)
def test_what_the_model_leaves_open_is_not_pruned(path, spec):
    open_in_model = MODEL[path].get("additionalProperties") is True
    assert open_in_model == (path in OPEN | TEMPLATES)
    holders = [f"{path}.metadata", f"{path}.spec"] if path in TEMPLATES else [path]
    for holder in holders:
        assert spec[holder].get("x-kubernetes-preserve-unknown-fields", False) == open_in_model


def test_an_integer_without_a_bound_is_one_of_64_bits(spec):
    unbounded = {p for p, told in spec.items() if told["type"] == "integer" and "maximum" not in told}
    assert {p for p, told in spec.items() if told.get("format") == "int64"} == unbounded


def test_the_api_server_fills_in_what_the_model_does(schema):
    job = parse_manifest(SMALLEST)
    filled = defaulted(schema["properties"]["spec"], yaml.safe_load(SMALLEST)["spec"])
    assert filled == job.spec.model_dump(mode="json", by_alias=True, exclude_none=True)


def test_a_filled_in_manifest_is_the_same_job(schema):
    document = yaml.safe_load(SMALLEST)
    document["spec"] = defaulted(schema["properties"]["spec"], document["spec"])
    assert parse_manifest(json.dumps(document)) == parse_manifest(SMALLEST)


def test_the_crd_bears_the_names_that_operator_and_cli_use(crd):
    names, (version,) = crd["spec"]["names"], crd["spec"]["versions"]
    assert f"{crd['spec']['group']}/{version['name']}" == f"{GROUP}/{VERSION}" == API_VERSION
    assert (names["plural"], names["kind"]) == (PLURAL, KIND)
    assert crd["metadata"]["name"] == f"{PLURAL}.{GROUP}"
