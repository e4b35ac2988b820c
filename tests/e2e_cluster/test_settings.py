import ipaddress
import itertools

import pytest

from cluster.errors import ClusterError
from cluster.settings import (
    Addresses,
    Clocks,
    Settings,
    from_environment,
    hardware_address,
    node_index,
    saved,
)


def networks(addresses):
    machines = [f"10.{addresses.block}.0.0/24", addresses.services]
    pods = [addresses.pods_of(index) for index in range(1, 100)]
    return [ipaddress.ip_network(text) for text in [*machines, *pods]]


def test_ranges_of_machines_services_and_pods_never_overlap():
    found = networks(Addresses(89))
    assert not [pair for pair in itertools.combinations(found, 2) if pair[0].overlaps(pair[1])]
    assert all(network.subnet_of(ipaddress.ip_network(Addresses(89).everything)) for network in found)


def test_every_machine_has_an_address_of_its_own_in_its_range():
    addresses = Addresses(89)
    machines = [addresses.router, addresses.control_plane, addresses.host]
    machines += [addresses.node(index) for index in range(1, 100)]
    assert len(set(machines)) == len(machines)
    inside = ipaddress.ip_network("10.89.0.0/24")
    assert all(ipaddress.ip_address(machine) in inside for machine in machines)
    assert ipaddress.ip_address(addresses.dns) in ipaddress.ip_network(addresses.services)
    assert ipaddress.ip_network(addresses.pods_of(99)).subnet_of(ipaddress.ip_network(addresses.pods))


def test_two_blocks_share_no_address():
    first, second = (ipaddress.ip_network(Addresses(block).everything) for block in (89, 90))
    assert not first.overlaps(second)


@pytest.mark.parametrize("block", [0, 256, -1])
def test_a_block_that_is_no_number_of_an_address_is_refused(block):
    with pytest.raises(ClusterError, match=r"block is .*1 to 255"):
        Addresses(block)


def test_the_hardware_address_follows_from_the_address():
    assert hardware_address("10.89.0.101") == "02:42:0a:59:00:65"


def test_a_nodes_index_is_in_its_name():
    assert [node_index(name) for name in ("node1", "node12")] == [1, 12]


@pytest.mark.parametrize("name", ["node0", "node100", "node", "nodex", "n1", "node-1", "node1.5"])
def test_other_names_are_no_nodes(name):
    with pytest.raises(ClusterError, match="node1 to node99"):
        node_index(name)


def test_the_environment_places_a_cluster(tmp_path):
    settings = from_environment({"CLUSTER_HOME": str(tmp_path), "CLUSTER_BLOCK": "90"})
    assert (settings.home, settings.cache, settings.block) == (tmp_path, tmp_path, 90)
    assert from_environment({}).home.name == ".cluster"


@pytest.mark.parametrize("home", ["/var/tmp/cluster", "/run/cluster"])
def test_a_home_that_nodes_would_hide_is_refused(home):
    with pytest.raises(ClusterError, match="CLUSTER_HOME"):
        from_environment({"CLUSTER_HOME": home})


@pytest.mark.parametrize("block", ["x", "1000"])
def test_a_block_in_the_environment_is_checked(block):
    with pytest.raises(ClusterError, match=r"(?i)block is"):
        from_environment({"CLUSTER_BLOCK": block})


def test_what_was_saved_is_what_runs(tmp_path):
    settings = Settings(tmp_path, tmp_path / "cache", 91, Clocks(lease_seconds=40))
    assert saved(tmp_path) is None
    settings.save()
    assert saved(tmp_path) == settings
