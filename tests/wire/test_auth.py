"""The join: a proof is bound to the key, the side, and everything that was said."""

import msgspec
import pytest
from wire_examples import CHALLENGE, HELLO, digest

from backupsync.launch import control_token
from backupsync.wire.auth import aggregator_proof, derive_key, matches, worker_proof

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
CHANGES = {
    "job": "other", "rank": 4, "attempt": 2, "start": 1, "incarnation": digest(1), "protocol": 2,
    "schema_hash": digest(1), "nonce": digest(1),
}  # fmt: skip


@pytest.mark.parametrize("proof", [worker_proof, aggregator_proof])
def test_the_proof_of_the_same_words_by_the_same_key_matches(proof):
    assert matches(proof(KEY, HELLO, CHALLENGE), proof(KEY, HELLO, CHALLENGE))
    assert len(proof(KEY, HELLO, CHALLENGE)) == 32


@pytest.mark.parametrize("proof", [worker_proof, aggregator_proof])
def test_another_key_proves_nothing(proof):
    assert not matches(proof(KEY, HELLO, CHALLENGE), proof(OTHER, HELLO, CHALLENGE))


def test_the_changes_cover_every_word_of_a_hello():
    assert CHANGES.keys() == set(HELLO.__struct_fields__)


@pytest.mark.parametrize(("field", "value"), CHANGES.items(), ids=CHANGES)
def test_a_proof_holds_for_no_other_hello(field, value):
    other = msgspec.structs.replace(HELLO, **{field: value})
    assert not matches(worker_proof(KEY, HELLO, CHALLENGE), worker_proof(KEY, other, CHALLENGE))


@pytest.mark.parametrize(("field", "value"), [("nonce", digest(1)), ("epoch", 3)])
def test_a_proof_cannot_be_replayed_against_another_challenge_or_epoch(field, value):
    other = msgspec.structs.replace(CHALLENGE, **{field: value})
    assert not matches(worker_proof(KEY, HELLO, CHALLENGE), worker_proof(KEY, HELLO, other))


def test_a_workers_proof_cannot_be_reflected_as_the_aggregators():
    assert not matches(worker_proof(KEY, HELLO, CHALLENGE), aggregator_proof(KEY, HELLO, CHALLENGE))


def test_keys_of_different_purposes_are_unrelated_and_none_is_the_jobs_key():
    derived = {derive_key(KEY, purpose) for purpose in ("control", "curve", "")}
    assert len(derived) == 3
    assert KEY not in derived
    assert control_token(KEY) == derive_key(KEY, "control").hex()


def test_a_proof_of_the_wrong_length_does_not_match():
    assert not matches(worker_proof(KEY, HELLO, CHALLENGE), b"")
