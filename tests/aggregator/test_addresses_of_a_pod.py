"""In a pod the aggregator listens on every address, and finds its workers in either family."""

import socket
import urllib.request

import pytest
from running_aggregator import desired
from test_endpoints_and_exits import free_port

from backupsync_aggregator import control_server
from backupsync_aggregator.control_server import ControlServer, Desk
from backupsync_aggregator.network.transport import Link

both = pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
needs_ipv6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="IPv6 is switched off here")


@pytest.fixture
def served():
    servers = []

    def serve():
        servers.append(ControlServer("*", 0, "token", Desk(desired(), lambda: None), lambda: b"page"))
        return servers[0].port

    yield serve
    for server in servers:
        server.close()


def page(host, port):
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=30) as answer:
        return answer.read()


@needs_ipv6
@both
def test_http_is_reached_by_either_family(served, host):
    assert page(host, served()) == b"page"


def test_without_ipv6_http_listens_on_every_address_of_ipv4(served, monkeypatch):
    monkeypatch.setattr(control_server, "has_both", lambda: False)
    assert page("127.0.0.2", served()) == b"page"


@needs_ipv6
@both
def test_workers_are_heard_in_either_family(small_wire, host):
    port = free_port()
    link = Link(f"tcp://*:{port}", small_wire, None)
    try:
        socket.create_connection((host.strip("[]"), port), timeout=30).close()
    finally:
        link.close(0)


def test_a_restart_of_the_pod_finds_its_port_free(small_wire):
    port = free_port()
    for _ in range(2):
        link = Link(f"tcp://*:{port}", small_wire, None)
        socket.create_connection(("127.0.0.1", port), timeout=30).close()
        link.close(0)
