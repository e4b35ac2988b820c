"""Aggregators and scripted peers that are gone when the test is over."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from running_aggregator import CHUNK, KEY, UID, RunningAggregator, desired, entries, manifest
from scripted_peer import ScriptedPeer

from backupsync.control import Desired
from backupsync.launch import AggregatorLaunch
from backupsync.spec import WireSpec
from backupsync.wire import messages as wire


@pytest.fixture
def desired_state() -> Callable[..., Desired]:
    """Return the maker of desired states: members as pairs, generation, workers, backups, ..."""
    return desired


@pytest.fixture
def small_wire() -> WireSpec:
    """Return the wire of the scripted jobs."""
    return WireSpec(chunk_bytes=CHUNK)


@pytest.fixture
def model() -> Callable[..., tuple[wire.TensorEntry, ...]]:
    """Return the maker of scripted models."""
    return entries


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., RunningAggregator]]:
    """Start an aggregator; `changes` go into its manifest, `launch` into its launch."""
    running: list[RunningAggregator] = []
    (tmp_path / "key").write_text(KEY.hex())

    def begin(
        changes: dict[str, Any] | None = None, state: Desired | None = None, **launch: Any
    ) -> RunningAggregator:
        number = len(running)
        given = {
            "job": "quadratic",
            "uid": UID,
            "manifest": manifest(**(changes or {})),
            "key_file": str(tmp_path / "key"),
            "endpoint": f"ipc://{tmp_path}/socket-{number}",
            "epoch": 1,
            "desired": msgspec.to_builtins(state or desired()),
            "http_file": str(tmp_path / f"http-{number}.json"),
            "trace_file": str(tmp_path / "trace.jsonl"),
        } | launch
        aggregator = RunningAggregator(AggregatorLaunch(**given))
        running.append(aggregator)
        return aggregator

    yield begin
    for aggregator in running:
        aggregator.stop()


@pytest.fixture
def join(request: pytest.FixtureRequest) -> Iterator[Callable[..., ScriptedPeer]]:
    """Make a scripted peer; with `joined=True` it joins (and gives the initial state when asked)."""
    peers: list[ScriptedPeer] = []

    def make(
        aggregator: RunningAggregator, rank: int = 0, *, joined: bool = True, **traits: Any
    ) -> ScriptedPeer:
        peer = ScriptedPeer(aggregator, rank, **traits)
        peers.append(peer)
        if joined:
            peer.join()
        return peer

    yield make
    for peer in peers:
        peer.close()
