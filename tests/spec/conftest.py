"""A valid manifest to break, and the problems that come of it."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from backupsync.spec import ManifestError, parse_manifest

VALID: dict[str, Any] = {
    "apiVersion": "backupsync.dev/v1alpha1",
    "kind": "BackupSyncJob",
    "metadata": {"name": "digits"},
    "spec": {
        "program": {"entrypoint": "digits:Digits"},
        "aggregation": {"workers": 4, "backupWorkers": 2},
        "training": {"iterations": 400, "batchSize": 32, "optimizer": {"name": "SGD", "lr": 0.1}},
    },
}
ABSENT = object()


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """The valid manifest with values at dotted paths put in place, or taken away by ABSENT."""
    document = copy.deepcopy(VALID)
    for path, value in changes.items():
        *parents, last = path.split(".")
        at = document
        for parent in parents:
            at = at.setdefault(parent, {})
        if value is ABSENT:
            del at[last]
        else:
            at[last] = value
    return document


@pytest.fixture
def problems() -> Callable[[dict[str, Any]], list[str]]:
    """{dotted path: value} -> every problem of the manifest changed in this way, as text."""

    def find(changes: dict[str, Any]) -> list[str]:
        try:
            parse_manifest(yaml.safe_dump(changed(changes)), "job.yaml")
        except ManifestError as error:
            return [str(problem) for problem in error.problems]
        return []

    return find


@pytest.fixture
def absent() -> object:
    return ABSENT


@pytest.fixture
def valid() -> str:
    return yaml.safe_dump(VALID)
