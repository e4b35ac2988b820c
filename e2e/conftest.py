"""Fixtures: the API, the operator, a namespace per test; and the rules of what may be skipped.

The environment says which cluster it is (`e2e/run.py` sets it): KUBECONFIG; E2E_CLUSTER, anything for the
project's own cluster, empty for anybody else's; E2E_VALUES, `--set` values of the chart; E2E_OUT.
"""

import json
import os
import signal
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from support.api import Api
from support.diagnostics import collect
from support.machine import Machine
from support.operator import NAMESPACE, Operator
from support.space import Labels, Space, name_for
from support.tiers import parse_shard

ROOT = Path(__file__).parents[1]
OUT = Path(os.environ.get("E2E_OUT") or ROOT / "out" / "e2e")
OWN = "needs_own_cluster"
MEASURED = Path(__file__).parent / "durations.json"
"""Seconds of each test, as last measured on the project's own cluster: they only bound a shard."""
_seconds = pytest.StashKey[dict[str, float]]()
_wrongly_skipped = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Prepare what is collected over the session."""
    config.stash[_seconds] = {}
    config.stash[_wrongly_skipped] = []
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts what runs in its background deaf to Ctrl-C, and all that follows from it with it.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The shard of the full tier."""
    parser.addoption("--shard", metavar="SEED:SECONDS", help="of the tests marked full, run as many as fit")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip on a foreign cluster what it cannot run, and leave out what is not in the shard."""
    if not os.environ.get("E2E_CLUSTER"):
        for item in items:
            if item.get_closest_marker(OWN):
                item.add_marker(pytest.mark.skip(reason="needs the project's own cluster"))
    if shard := config.getoption("--shard"):
        full = [item.nodeid for item in items if item.get_closest_marker("full")]
        chosen = parse_shard(shard).of(full, json.loads(MEASURED.read_text()))
        left_out = [item for item in items if item.nodeid in set(full) - chosen]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the seconds of every test, and whether one that this cluster must run was skipped."""
    report = yield
    if report.failed:
        item.stash[_failed] = True
        folder = OUT / item.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{report.when}.txt").write_text(report.longreprtext)
    if report.skipped and os.environ.get("E2E_CLUSTER") and item.get_closest_marker(OWN):
        item.config.stash[_wrongly_skipped].append(item.nodeid)
    seconds = item.config.stash[_seconds]
    if not report.skipped:
        seconds[item.nodeid] = round(seconds.get(item.nodeid, 0.0) + report.duration, 1)
    return report


_failed = pytest.StashKey[bool]()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write how long each test took; a fault test that was skipped on our own cluster fails the run."""
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "durations.json").write_text(json.dumps(session.config.stash[_seconds], indent=1, sort_keys=True))
    if session.config.stash[_wrongly_skipped]:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name what should not have been skipped."""
    for test in config.stash[_wrongly_skipped]:
        terminalreporter.write_line(f"SKIPPED ON OUR OWN CLUSTER, which is a failure: {test}", red=True)


@pytest.fixture(scope="session")
def api() -> Iterator[Api]:
    """The API of the cluster."""
    if not os.environ.get("KUBECONFIG"):
        pytest.exit("KUBECONFIG is not set: `make e2e` brings a cluster of its own", returncode=2)
    with Api(Path(os.environ["KUBECONFIG"])) as api:
        yield api


@pytest.fixture(scope="session")
def installed(api: Api) -> Operator:
    """The operator as the run installed it, once."""
    values = json.loads(os.environ.get("E2E_VALUES") or "[]")
    operator = Operator(api, values)
    operator.wait_until_ready()
    return operator


@pytest.fixture(scope="session")
def cluster_machine(api: Api, installed: Operator) -> Machine | None:
    """The project's own cluster, None on a foreign one."""
    return Machine(api, installed) if os.environ.get("E2E_CLUSTER") else None


@pytest.fixture
def operator(installed: Operator) -> Operator:
    """The operator, in office and ready, whatever an earlier test did to it."""
    installed.wait_until_ready()
    return installed


@pytest.fixture
def machine(cluster_machine: Machine | None) -> Iterator[Machine]:
    """Nodes and processes to break; everything is mended afterwards."""
    assert cluster_machine is not None, "mark the test needs_own_cluster"
    yield cluster_machine
    cluster_machine.mend_all()


@pytest.fixture
def space(
    operator: Operator, cluster_machine: Machine | None, request: pytest.FixtureRequest
) -> Iterator[Space]:
    """A namespace of the test's own."""
    disk = cluster_machine.disk if cluster_machine else None
    api = operator.api
    space = Space(api, f"{name_for(request.node.name)}-{int(time.time()) % 10000}", disk).make()
    yield space
    if request.node.stash.get(_failed, False):
        collect(api, [space.name, NAMESPACE], OUT / request.node.name)
    space.clean()


@pytest.fixture
def labelled(space: Space) -> Iterator[Labels]:
    """A label of the test's own on every node."""
    labels = Labels(space.api, f"e2e.backupsync.dev/{space.name}"[:80])
    yield labels
    labels.set(None)
