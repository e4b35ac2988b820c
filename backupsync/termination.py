"""Last words of a container: what the kubelet hands to whoever asks why a pod ended.

The kubelet reads a file in the container (`terminationMessagePath`) when it has ended, 4096 bytes at most; it
is shown as `containerStatuses[].state.terminated.message`. A role that fails writes its traceback there, of
which the end says most. An aggregator whose job is over writes its last status, as one line of JSON: so an
operator that was away at that moment still learns how the job ended. Outside a container there is no such
file, and nothing is written.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import structs

from backupsync.control import AggregatorStatus

VARIABLE: Final = "BACKUPSYNC_TERMINATION_LOG"
"""Path of the file, where it is not the default."""
DEFAULT_PATH: Final = "/dev/termination-log"
MAX_BYTES: Final = 4096
"""What the kubelet reads of it."""
_CUT: Final = "...\n"


def write_last_words(text: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Leave `text`, or its end where it is long, for the kubelet; say whether that was possible.

    Never makes the file: where it is missing, this is no container.
    """
    path = Path(environment.get(VARIABLE) or DEFAULT_PATH)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(handle, tail(text).encode())
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def tail(text: str, limit: int = MAX_BYTES) -> str:
    """Return the end of `text` that fits into `limit` bytes of UTF-8, from the beginning of a line on."""
    data = text.strip().encode(errors="replace")
    if len(data) <= limit:
        return data.decode()
    kept = data[-(limit - len(_CUT)) :].decode(errors="ignore")
    _, newline, rest = kept.partition("\n")
    return _CUT + (rest if newline and rest else kept)


def encode_ending(status: AggregatorStatus) -> str:
    """Return the last status of a job's aggregator as one line that the kubelet takes whole.

    Members and refusals are left out; what a program logged and long messages give way where space is short.
    """
    status = structs.replace(status, members=(), refusals=())
    steps: tuple[dict[str, Any], ...] = ({}, {"metrics": {}}, {"evaluation": {}, "evaluation_problem": ""})
    for smaller in steps:
        status = structs.replace(status, **smaller)
        text = msgspec.json.encode(status)
        if len(text) <= MAX_BYTES:
            return text.decode()
    # JSON may need six bytes for a character.
    return msgspec.json.encode(structs.replace(status, message=status.message[-400:])).decode()


def decode_ending(text: str) -> AggregatorStatus | None:
    """Return the last status that `encode_ending` wrote; None where `text` is something else."""
    try:
        return msgspec.json.decode(text, type=AggregatorStatus)
    except (msgspec.MsgspecError, RecursionError):
        return None
