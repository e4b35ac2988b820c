"""The bytes on the wire are frozen: an older peer must still be understood, or be refused by its version.

A change that fails here needs a new PROTOCOL number (docs/reference/wire.md says when). Then write the
new bytes: `BACKUPSYNC_WRITE_GOLDEN=1 pytest tests/wire/test_golden_bytes.py`.
"""

import json
import os
from pathlib import Path

import pytest
from wire_examples import CHALLENGE, EVERY, FROM_WORKER, HELLO, TENSORS

from backupsync.wire.auth import aggregator_proof, derive_key, worker_proof
from backupsync.wire.frames import decode_from_aggregator, decode_from_worker, encode
from backupsync.wire.schema import Schema

GOLDEN = Path(__file__).with_name("golden.json")
KEY = bytes(range(32))


def now() -> dict[str, str]:
    messages = {name: bytes(encode(message)[0]).hex() for name, message in EVERY.items()}
    return messages | {
        "schema hash": Schema(TENSORS).hash.hex(),
        "worker proof": worker_proof(KEY, HELLO, CHALLENGE).hex(),
        "aggregator proof": aggregator_proof(KEY, HELLO, CHALLENGE).hex(),
        "control token": derive_key(KEY, "control").hex(),
        "curve secret": derive_key(KEY, "curve").hex(),
    }


@pytest.fixture(scope="module")
def golden() -> dict[str, str]:
    if os.environ.get("BACKUPSYNC_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(now(), indent=1) + "\n")
    frozen: dict[str, str] = json.loads(GOLDEN.read_text())
    return frozen


@pytest.mark.parametrize("name", now())
def test_the_bytes_are_those_that_were_frozen(name, golden):
    assert now()[name] == golden[name]


def test_nothing_frozen_has_been_forgotten(golden):
    assert golden.keys() == now().keys()


@pytest.mark.parametrize("name", EVERY)
def test_the_frozen_bytes_still_read_as_the_message(name, golden):
    decode = decode_from_worker if name in FROM_WORKER else decode_from_aggregator
    assert decode([bytes.fromhex(golden[name])], 0) == (EVERY[name], None)
