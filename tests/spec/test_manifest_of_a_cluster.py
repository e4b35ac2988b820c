"""A job as the API server prints it is a manifest too: what the server added is left aside."""

import yaml

from backupsync.spec import parse_manifest

PRINTED = """\
creationTimestamp: "2026-01-02T03:04:05Z"
generateName: digits-
generation: 2
finalizers: [example.com/hold]
managedFields: [{manager: kubectl, operation: Apply, fieldsV1: {"f:spec": {}}}]
ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: owner, uid: 1b4e}]
resourceVersion: "4711"
uid: 6a0c
"""


def test_what_an_api_server_adds_is_left_aside(valid):
    document = yaml.safe_load(valid)
    document["metadata"] |= yaml.safe_load(PRINTED)
    document["status"] = {"state": "Running", "progress": {"iteration": 7}}
    assert parse_manifest(yaml.safe_dump(document)) == parse_manifest(valid)


def test_a_template_with_metadata_and_spec_passes_through_whole(valid):
    document = yaml.safe_load(valid)
    template = {"metadata": {"labels": {"team": "a"}}, "spec": {"containers": [{"name": "worker"}], "new": 1}}
    document["spec"]["worker"] = {"template": template}
    assert parse_manifest(yaml.safe_dump(document)).spec.worker.template == template
