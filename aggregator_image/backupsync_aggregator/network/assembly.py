"""A flat array put together from chunks: each accepted once, where it belongs, at its exact size."""

from backupsync.wire.frames import Buffer
from backupsync.wire.messages import RefusalCode
from backupsync_aggregator.network.admission import Rejected


class Assembly:
    """`total` bytes that arrive in chunks of `chunk_bytes`, in any order. Reusable."""

    def __init__(self, total: int, chunk_bytes: int) -> None:
        self.total = total
        self.data = bytearray(total)
        self._chunk_bytes = chunk_bytes
        self._view = memoryview(self.data)
        self._arrived = bytearray(-(-total // chunk_bytes))
        self._missing = len(self._arrived)

    @property
    def whole(self) -> bool:
        """Whether every chunk is there."""
        return self._missing == 0

    def put(self, offset: int, payload: Buffer) -> memoryview:
        """Copy one chunk to its place and return a view of it there. Raises Rejected, with nothing copied."""
        index, rest = divmod(offset, self._chunk_bytes)
        if rest or offset >= self.total:
            detail = f"offset {offset} begins no chunk of {self._chunk_bytes} in {self.total} bytes"
            raise Rejected(RefusalCode.MALFORMED, detail)
        size = min(self._chunk_bytes, self.total - offset)
        if len(payload) != size:
            detail = f"the chunk at {offset} has {len(payload)} bytes, must have {size}"
            raise Rejected(RefusalCode.MALFORMED, detail)
        if self._arrived[index]:
            raise Rejected(RefusalCode.MALFORMED, f"the chunk at {offset} came twice")
        place = self._view[offset : offset + size]
        place[:] = memoryview(payload).cast("B")
        self._arrived[index] = 1
        self._missing -= 1
        return place

    def clear(self) -> None:
        """Forget what has arrived, keep the memory."""
        self._arrived = bytearray(len(self._arrived))
        self._missing = len(self._arrived)
