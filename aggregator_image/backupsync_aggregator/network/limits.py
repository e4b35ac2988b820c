"""Bounds of what a peer may make this process hold."""

from typing import Final

from backupsync.wire.frames import MAX_HEADER_BYTES

SEND_LIMIT: Final = 100_000
"""Messages queued for one peer. By credit a peer has one version of the parameters outstanding, and all peers
share its bytes; a pipe this full belongs to a peer that is gone."""
RECEIVE_LIMIT: Final = 64
"""Messages of one peer waiting to be read; beyond it TCP holds the sender back."""
UNPROVEN_LIMIT: Final = 256
"""Peers between HELLO and PROOF; beyond it the oldest is forgotten."""
JOIN_SECONDS: Final = 30.0
"""A peer that has not proven itself after this long is forgotten."""
DISMISSED_LIMIT: Final = 4096
"""Connections remembered after their Leave."""
REFUSAL_LIMIT: Final = 64
"""Refusals kept for the status, equal ones counted as one."""

WARNINGS_PER_MINUTE: Final = 64
"""Refusals that reach the log; the rest is counted."""
CONNECTION_LIMIT: Final = 64
"""HTTP connections served at once; beyond it the oldest is closed."""


def largest_message(chunk_bytes: int) -> int:
    """Return the size in bytes beyond which libzmq itself drops a peer's frame and connection."""
    return max(MAX_HEADER_BYTES, chunk_bytes) + 1024
