"""What can go wrong between a person and a cluster, each with a remedy; raised at one boundary."""

import json
from typing import Any, NamedTuple

from backupsync.errors import BackupSyncError


class ClusterError(BackupSyncError):
    """A cluster that does not do what was asked; the message says why, and what would help."""


class NotFound(ClusterError):  # noqa: N818 -- the API's own word
    """The object is not there (or no longer)."""


class NotInstalled(NotFound):
    """The cluster knows no BackupSyncJobs: the operator's chart brings them."""


class Conflict(ClusterError):  # noqa: N818 -- the API's own word
    """The object exists already, or has been changed in between."""


class Invalid(ClusterError):  # noqa: N818 -- the API's own word
    """The API server refuses the object; the message holds every reason it gave."""


class Forbidden(ClusterError):  # noqa: N818 -- the API's own word
    """The user may not do this."""


class Unreachable(ClusterError):  # noqa: N818 -- a state, not a fault
    """There is no answer from the API server, or no way to it."""


class TimedOut(ClusterError):  # noqa: N818 -- a state, not a fault
    """What was waited for has not happened in time."""


class Ended(ClusterError):  # noqa: N818 -- a state, not a fault
    """What was waited for can no longer happen: the job has ended another way, or is gone."""


class Answer(NamedTuple):
    """What the API server says of a request that it did not carry out."""

    status: int
    """HTTP status."""
    reason: str
    """CamelCase word, such as NotFound, AlreadyExists or Invalid."""
    message: str
    causes: tuple[tuple[str, str], ...]
    """(field, message) of each, where it names fields."""


_KINDS: dict[int, type[ClusterError]] = {
    400: Invalid,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    413: Invalid,
    415: Invalid,
    422: Invalid,
}
_REMEDIES = {
    401: "log in again, or check the user of this context (`kubectl auth whoami`)",
    403: "ask for the role `edit` in this namespace, to which the operator's chart adds its jobs "
    "(`kubectl auth can-i --list` shows what you may)",
}


def answer_of(status: int, body: bytes) -> Answer:
    """Read the Kubernetes `Status` in a response; any other text is taken as its message."""
    try:
        document: Any = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        text = body.decode("utf-8", "replace").strip()
        return Answer(status, "", text or f"HTTP {status}", ())
    details = document.get("details") or {}
    causes = tuple(
        (str(cause.get("field") or ""), str(cause.get("message") or ""))
        for cause in details.get("causes") or ()
    )
    message = str(document.get("message") or f"HTTP {status}")
    return Answer(status, str(document.get("reason") or ""), message, causes)


def error_of(answer: Answer, what: str) -> ClusterError:
    """Return the error that says what the API server said; `what` names the object or the request."""
    kind = _KINDS.get(answer.status, ClusterError)
    # Only a path that the API server does not serve at all is answered without a reason or a name.
    unserved = not answer.reason or "could not find the requested resource" in answer.message
    if answer.status == 404 and unserved:
        return NotInstalled(
            f"{what}: this cluster knows no BackupSyncJobs; install the operator: "
            "helm install backupsync charts/backupsync"
        )
    said = [f"{field}: {message}" if field else message for field, message in answer.causes]
    text = "".join(f"\n  {line}" for line in said) if said else f" {answer.message}"
    if answer.status in (429, 500, 503, 504):
        return Unreachable(f"{what}: the API server answers {answer.status}:{text}; try again in a moment")
    remedy = f"; {_REMEDIES[answer.status]}" if answer.status in _REMEDIES else ""
    return kind(f"{what}:{text}{remedy}")


def unreachable(where: str, cause: object) -> Unreachable:
    """Return the error for an API server that does not answer at all."""
    return Unreachable(
        f"{where}: no answer ({cause}); is the cluster up, and is this the context you mean? "
        "(`kubectl config current-context`, --context CONTEXT)"
    )
