"""Join by HMAC: both sides prove that they hold the job's key, bound to everything the HELLO said."""

import hashlib
import hmac

import msgspec

from backupsync.wire.messages import Challenge, Hello


def worker_proof(key: bytes, hello: Hello, challenge: Challenge) -> bytes:
    """MAC by which a worker answers `challenge` (32 bytes)."""
    return _mac(key, b"worker", hello, challenge)


def aggregator_proof(key: bytes, hello: Hello, challenge: Challenge) -> bytes:
    """MAC by which the aggregator proves itself in its WELCOME (32 bytes)."""
    return _mac(key, b"aggregator", hello, challenge)


def matches(expected: bytes, given: bytes) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(expected, given)


def derive_key(key: bytes, purpose: str) -> bytes:
    """A 32-byte key for one purpose (control token, CURVE secret), so that only one secret is handed out."""
    return hmac.new(key, b"backupsync/1/" + purpose.encode(), hashlib.sha256).digest()


def _mac(key: bytes, side: bytes, hello: Hello, challenge: Challenge) -> bytes:
    said = msgspec.msgpack.encode((side, hello, challenge))
    return hmac.new(key, said, hashlib.sha256).digest()
