"""The job's first parameters, taken from the first member that proves itself when there is no checkpoint."""

import hashlib

from backupsync.wire.frames import Buffer
from backupsync.wire.messages import Initial, InitialDone, RefusalCode
from backupsync.wire.schema import Schema
from backupsync_aggregator.network.admission import Rejected
from backupsync_aggregator.network.assembly import Assembly


class InitialState:
    """One member's initial state on its way in: the sections `moving` and `frozen`."""

    def __init__(self, schema: Schema, chunk_bytes: int) -> None:
        self.schema = schema
        self._sections = {
            "moving": Assembly(schema.section_bytes(schema.moving), chunk_bytes),
            "frozen": Assembly(schema.section_bytes(schema.frozen), chunk_bytes),
        }

    @property
    def moving(self) -> bytearray:
        """Bytes of the trainable tensors and buffers."""
        return self._sections["moving"].data

    @property
    def frozen(self) -> bytearray:
        """Bytes of the frozen tensors."""
        return self._sections["frozen"].data

    def put(self, message: Initial, payload: Buffer | None) -> None:
        """Take one chunk. Raises Rejected."""
        if payload is None:
            raise Rejected(RefusalCode.MALFORMED, "a chunk of the initial state without bytes")
        self._sections[message.section].put(message.offset, payload)

    def close(self, done: InitialDone) -> str:
        """Check that all of it came as it was sent; return its SHA-256 in hex. Raises Rejected."""
        missing = [name for name, section in self._sections.items() if not section.whole]
        if missing:
            raise Rejected(RefusalCode.MALFORMED, f"the initial state is incomplete: {', '.join(missing)}")
        digest = hashlib.sha256(self.moving)
        digest.update(self.frozen)
        if digest.digest() != done.digest:
            raise Rejected(
                RefusalCode.MALFORMED, "the initial state does not have the digest it was sent with"
            )
        return digest.hexdigest()
