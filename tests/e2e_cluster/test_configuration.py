import json
import re
import shutil
import ssl
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from cluster import pki, storage, tools
from cluster.control_plane import COMPONENTS, command
from cluster.images import PAUSE
from cluster.node import HERE, render, values
from cluster.settings import Clocks, Settings

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificates")


@pytest.fixture
def settings(tmp_path):
    return Settings(tmp_path, tmp_path, 90, Clocks(grace_seconds=7, lease_seconds=3))


def rendered(settings, name, folder="config"):
    return render(HERE / folder / name, values(settings, "node3"))


def flags(settings, component):
    return dict(re.fullmatch(r"--([a-z-]+)=(.*)", word).groups() for word in command(settings, component)[1:])


def test_the_kubelet_is_told_its_address_its_dns_and_its_clocks(settings):
    kubelet = yaml.safe_load(rendered(settings, "kubelet.yaml"))
    assert kubelet["address"] == "10.90.0.103"
    assert kubelet["clusterDNS"] == [settings.addresses.dns]
    assert kubelet["cgroupRoot"] == "/bs90/node3"
    assert (kubelet["nodeLeaseDurationSeconds"], kubelet["nodeStatusUpdateFrequency"]) == (3, "2s")


def test_pods_get_addresses_of_their_node(settings):
    bridge = json.loads(rendered(settings, "cni.conflist"))["plugins"][0]
    assert bridge["ipam"]["ranges"] == [[{"subnet": "10.90.131.0/24", "gateway": "10.90.131.1"}]]


def test_containerd_starts_pods_from_the_image_that_is_built_here(settings):
    plugins = tomllib.loads(rendered(settings, "containerd.toml"))["plugins"]
    assert plugins["io.containerd.grpc.v1.cri"]["sandbox_image"] == PAUSE


def test_kube_proxy_serves_its_own_node(settings):
    proxy = yaml.safe_load(rendered(settings, "kube-proxy.yaml"))
    assert (proxy["hostnameOverride"], proxy["nodePortAddresses"]) == ("node3", ["10.90.0.103/32"])


@pytest.mark.parametrize("name", ["dns.yaml", "storage.yaml"])
def test_manifests_are_complete_objects(settings, name):
    objects = list(yaml.safe_load_all(rendered(settings, name, "manifests")))
    assert objects
    assert all(item["apiVersion"] and item["kind"] and item["metadata"]["name"] for item in objects)


def test_the_control_plane_finds_every_key_it_is_told_of(settings):
    pki.make(settings)
    told = {
        Path(value) for part in COMPONENTS for value in flags(settings, part).values() if "/pki/" in value
    }
    assert len(told) > 10
    assert [path for path in told if not path.exists()] == []


def test_certificates_are_valid_where_they_are_shown(settings):
    pki.make(settings)
    pki.node(settings, "node3", settings.addresses.node(3))
    verify = ["openssl", "verify", "-CAfile", settings.pki / "ca.crt"]
    for name, options in {
        "apiserver": ["-verify_ip", settings.addresses.control_plane],
        "node3": ["-verify_ip", "10.90.0.103"],
        "admin": [],
    }.items():
        subprocess.run([*verify, *options, settings.pki / f"{name}.crt"], check=True, capture_output=True)
    other = [*verify, "-verify_ip", "10.90.0.104", settings.pki / "node3.crt"]
    assert subprocess.run(other, check=False, capture_output=True).returncode != 0


def test_certificates_are_made_once(settings):
    pki.make(settings)
    before = (settings.pki / "admin.crt").read_bytes()
    pki.make(settings)
    assert (settings.pki / "admin.crt").read_bytes() == before
    ssl.create_default_context().load_cert_chain(settings.pki / "admin.crt", settings.pki / "admin.key")


def test_a_kubeconfig_holds_everything_and_is_nobody_elses(settings):
    pki.make(settings)
    pki.kubeconfig(settings, "admin", settings.kubeconfig)
    content = yaml.safe_load(settings.kubeconfig.read_text())
    assert content["clusters"][0]["cluster"]["server"] == "https://10.90.0.2:6443"
    assert content["current-context"] == content["contexts"][0]["name"]
    assert settings.kubeconfig.stat().st_mode & 0o077 == 0


def test_lost_nodes_are_noticed_as_fast_as_the_clocks_say(settings):
    assert flags(settings, "kube-controller-manager")["node-monitor-grace-period"] == "7s"


def test_volumes_are_open_to_every_user_and_on_the_shared_directory(settings):
    volume = json.loads(storage.manifest(settings, ["e2e-7"]))["items"][0]
    assert volume["spec"]["hostPath"]["path"] == "/var/lib/backupsync-e2e/e2e-7"
    assert (settings.shared / "e2e-7").stat().st_mode & 0o777 == 0o777


@pytest.mark.parametrize(
    ("version", "good"),
    [("go1.26.0", True), ("go1.30", True), ("go2.0", True), ("go1.25.9", False), ("devel go1.27-abc", True)],
)
def test_only_a_recent_go_builds_kubernetes(version, good):
    assert tools.recent_enough(version) is good


def test_programs_are_built_again_with_another_go_only():
    assert tools.key("addons", "go1.26.0") == tools.key("addons", "go1.26.0")
    assert tools.key("addons", "go1.26.0") != tools.key("addons", "go1.26.1")
    assert tools.kubernetes_version().startswith("v1.34.")
