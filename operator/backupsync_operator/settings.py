"""What the operator is told: `BACKUPSYNC_*` environment variables, checked at once, every problem named."""

import os
import socket
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from backupsync.errors import BackupSyncError

PREFIX = "BACKUPSYNC_"


def _comma_list(value: object) -> object:
    return (
        tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
    )


class Settings(BaseModel):
    """Every setting; each is the environment variable `BACKUPSYNC_` + its name in capitals."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    namespaces: Annotated[tuple[str, ...], BeforeValidator(_comma_list)] = ()
    """Namespaces that are watched; empty: the whole cluster."""
    worker_image: str = Field(min_length=1)
    """Image of workers whose template names none."""
    aggregator_image: str = Field(min_length=1)
    """Image of aggregators whose template names none."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """Pull policy of those two images."""
    lease_name: str = "backupsync-operator"
    """Lease that makes one operator the active one."""
    lease_namespace: str = Field(min_length=1)
    """Namespace of the Lease and of the operator's key: the operator's own."""
    lease_seconds: float = Field(default=15.0, ge=2.0)
    """Seconds without a renewal after which a standby takes over."""
    identity: str = Field(default_factory=socket.gethostname, min_length=1)
    """Name of this operator in the Lease: its pod's name."""
    key_secret: str = "backupsync-operator-key"  # noqa: S105 -- a name, not a secret
    """Secret with the operator's key, created when it is missing."""
    workers: int = Field(default=4, ge=1, le=64)
    """Jobs reconciled at the same time."""
    status_writes_per_second: float = Field(default=5.0, gt=0)
    """Budget of progress writes over all jobs."""
    progress_seconds: float = Field(default=10.0, gt=0)
    """Shortest time between two progress writes of one job."""
    log_format: Literal["text", "json"] = "text"
    """Format of the log on stderr."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe log lines written."""
    http_port: int = Field(default=8080, ge=0, le=65535)
    """Port of /healthz, /readyz and /metrics; 0 takes a free one."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the settings. Raises BackupSyncError that names every variable at fault."""
        names = {PREFIX + name.upper(): name for name in cls.model_fields}
        given = {names[variable]: text for variable, text in environment.items() if variable in names}
        try:
            return cls.model_validate({name: text for name, text in given.items() if text != ""})
        except ValidationError as error:
            problems = (f"{PREFIX}{_variable(e['loc'])}: {e['msg']}" for e in error.errors())
            raise BackupSyncError("; ".join(problems)) from error

    @property
    def cluster_wide(self) -> bool:
        """Whether every namespace is watched; node objects are within reach only then."""
        return not self.namespaces


def _variable(location: tuple[int | str, ...]) -> str:
    return str(location[0]).upper() if location else ""
