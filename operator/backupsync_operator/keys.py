"""Keys: one of the operator's, from which every job's follows. A job's key is recomputed, never read back."""

import base64
import hashlib
import hmac
import secrets

from backupsync.errors import BackupSyncError
from backupsync_operator.api import AlreadyExists, Api, NotFound, Object
from backupsync_operator.kinds import SECRETS

KEY_BYTES = 32
FIELD = "key"


def job_key(operator_key: bytes, uid: str) -> bytes:
    """The 32-byte key of the job with this uid: HMAC-SHA256 of purpose and uid under the operator's key."""
    return hmac.new(operator_key, b"backupsync/1/job/" + uid.encode("ascii"), hashlib.sha256).digest()


async def operator_key(api: Api, namespace: str, name: str) -> bytes:
    """Read the operator's key, creating its Secret when it is missing. Raises ApiError, BackupSyncError."""
    while True:
        try:
            return _decoded(await api.read(SECRETS, namespace, name), f"{namespace}/{name}")
        except NotFound:
            pass
        try:
            await api.create(SECRETS, namespace, _fresh(name))
        except AlreadyExists:  # another operator was faster: its key is the one
            continue


def _fresh(name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "backupsync"}},
        "type": "Opaque",
        "stringData": {FIELD: secrets.token_hex(KEY_BYTES)},
    }


def _decoded(secret: Object, name: str) -> bytes:
    try:
        key = bytes.fromhex(base64.b64decode(secret["data"][FIELD]).decode("ascii").strip())
    except (KeyError, TypeError, ValueError) as error:
        raise BackupSyncError(
            f"secret {name}: holds no `{FIELD}` of {2 * KEY_BYTES} hex digits; delete it: a fresh one is made"
        ) from error
    if len(key) != KEY_BYTES:
        raise BackupSyncError(f"secret {name}: `{FIELD}` holds {len(key)} bytes, must hold {KEY_BYTES}")
    return key
