"""A client of a small API server."""

import json

import pytest
from fake_kubernetes import FakeKubernetes

from backupsync.cluster import Client


@pytest.fixture
def fake():
    server = FakeKubernetes()
    yield server
    server.close()


@pytest.fixture
def kubeconfig(fake, tmp_path, monkeypatch):
    path = tmp_path / "kubeconfig"
    contexts = [
        {"name": "team", "context": {"cluster": "fake", "user": "me", "namespace": "team"}},
        {"name": "bare", "context": {"cluster": "fake", "user": "me"}},
    ]
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "team",
        "clusters": [{"name": "fake", "cluster": {"server": fake.url}}],
        "users": [{"name": "me", "user": {"token": "secret"}}],
        "contexts": contexts,
    }
    path.write_text(json.dumps(document))
    monkeypatch.setenv("KUBECONFIG", str(path))
    return path


@pytest.fixture
def client(kubeconfig):
    with Client() as client:
        yield client
