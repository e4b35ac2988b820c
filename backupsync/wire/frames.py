"""Frames: a message and its payload as bytes, bounded and checked before use.

Frame 0 is `b"BSYN"`, the protocol version as one byte, then the msgpack header; frame 1, if any, the payload.
"""

from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

from backupsync.wire.messages import PROTOCOL, FromAggregator, FromWorker, RefusalCode

Buffer = bytes | bytearray | memoryview

MAGIC: Final = b"BSYN"
MAX_HEADER_BYTES: Final = 16 * 1024 * 1024
"""A Proof names every tensor of the model; everything else is far below."""

_PREFIX: Final = MAGIC + bytes([PROTOCOL])
_encoder = msgspec.msgpack.Encoder()
_from_worker = msgspec.msgpack.Decoder(FromWorker)
_from_aggregator = msgspec.msgpack.Decoder(FromAggregator)
M = TypeVar("M")


class FrameError(Exception):
    """Frames that are no message of this protocol; `code` says how."""

    def __init__(self, code: RefusalCode, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(f"{code}: {detail}")


def encode(message: FromWorker | FromAggregator, payload: Buffer | None = None) -> list[Buffer]:
    """Return the frames of `message`; the payload is not copied."""
    header = _PREFIX + _encoder.encode(message)
    return [header] if payload is None else [header, payload]


def decode_from_worker(frames: Sequence[Buffer], max_payload: int) -> tuple[FromWorker, Buffer | None]:
    """Read what a worker sent. Raises FrameError; `max_payload` bounds the payload in bytes."""
    return _decode(frames, max_payload, _from_worker)


def decode_from_aggregator(
    frames: Sequence[Buffer], max_payload: int
) -> tuple[FromAggregator, Buffer | None]:
    """Read what the aggregator sent. Raises FrameError; `max_payload` bounds the payload in bytes."""
    return _decode(frames, max_payload, _from_aggregator)


def _decode(
    frames: Sequence[Buffer], max_payload: int, decoder: msgspec.msgpack.Decoder[M]
) -> tuple[M, Buffer | None]:
    if not 1 <= len(frames) <= 2:
        raise FrameError(RefusalCode.MALFORMED, f"a message has 1 or 2 frames, not {len(frames)}")
    header = frames[0]
    if len(header) > MAX_HEADER_BYTES:
        raise FrameError(RefusalCode.MALFORMED, f"header of {len(header)} bytes exceeds {MAX_HEADER_BYTES}")
    if bytes(header[: len(MAGIC)]) != MAGIC:
        raise FrameError(RefusalCode.MALFORMED, "the header does not begin with the magic number")
    if bytes(header[: len(_PREFIX)]) != _PREFIX:
        version = header[len(MAGIC)] if len(header) > len(MAGIC) else None
        raise FrameError(RefusalCode.PROTOCOL, f"protocol {version}, this side speaks {PROTOCOL}")
    payload = frames[1] if len(frames) == 2 else None
    if payload is not None and len(payload) > max_payload:
        raise FrameError(RefusalCode.MALFORMED, f"payload of {len(payload)} bytes exceeds {max_payload}")
    try:
        return decoder.decode(header[len(_PREFIX) :]), payload
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(RefusalCode.MALFORMED, f"header: {error}") from error
