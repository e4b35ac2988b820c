"""Where a command works: local processes or a cluster. Said by the user, never guessed.

`@targeted` gives a command the options that say it, and hands it the answer as its first argument.
"""

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, Final, ParamSpec

import typer
from msgspec import Struct

from backupsync.cli.options import PANEL, StateDir
from backupsync.errors import BackupSyncError
from backupsync.local.home import JobDirectory, state_root

if TYPE_CHECKING:
    from backupsync.cluster import Client

P = ParamSpec("P")

VARIABLE: Final = "BACKUPSYNC_TARGET"


class Local(Struct, frozen=True):
    """Processes of this machine."""

    root: Path

    def job(self, name: str) -> JobDirectory:
        """Return the directory of a job that exists. Raises BackupSyncError."""
        directory = JobDirectory(self.root, name)
        directory.require()
        return directory

    @property
    def said(self) -> str:
        """The options that say it again."""
        return "--local"


class Cluster(Struct, frozen=True):
    """A cluster, by kubeconfig."""

    context: str | None = None
    kubeconfig: str | None = None
    namespace: str | None = None

    def client(self) -> "Client":
        """Return the client. Raises BackupSyncError where there is no way to the cluster."""
        from backupsync.cluster import Client  # noqa: PLC0415

        return Client(context=self.context, kubeconfig=self.kubeconfig, namespace=self.namespace)

    @property
    def said(self) -> str:
        """The options that say it again."""
        pairs = {"--context": self.context, "--kubeconfig": self.kubeconfig, "-n": self.namespace}
        given = [f"{option} {value}" for option, value in pairs.items() if value is not None]
        return " ".join(given) or "--cluster"


Target = Local | Cluster

LocalOption = Annotated[
    bool,
    typer.Option("--local", rich_help_panel=PANEL, help="Processes that `backupsync run` started here."),
]
ClusterOption = Annotated[
    bool,
    typer.Option(
        "--cluster",
        rich_help_panel=PANEL,
        help="The cluster of the kubeconfig's current context; $BACKUPSYNC_TARGET=cluster says it for good.",
    ),
]
ContextOption = Annotated[
    str | None,
    typer.Option(
        "--context", metavar="CONTEXT", rich_help_panel=PANEL, help="The cluster of this kubeconfig context."
    ),
]
KubeconfigOption = Annotated[
    str | None,
    typer.Option(
        "--kubeconfig",
        metavar="FILE",
        rich_help_panel=PANEL,
        help="The cluster of this kubeconfig. (default: $KUBECONFIG, else ~/.kube/config, else, in a pod, "
        "its service account)",
    ),
]
NamespaceOption = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        metavar="NAMESPACE",
        rich_help_panel=PANEL,
        help="The cluster's namespace. (default: the context's)",
    ),
]

_CLUSTER: Final[dict[str, tuple[Any, Any]]] = {
    "cluster": (ClusterOption, False),
    "context": (ContextOption, None),
    "kubeconfig": (KubeconfigOption, None),
    "namespace": (NamespaceOption, None),
}
_EITHER: Final[dict[str, tuple[Any, Any]]] = {
    "local": (LocalOption, False),
    "state_dir": (StateDir, None),
    **_CLUSTER,
}


def targeted(command: Callable[Concatenate[Target, P], None]) -> Callable[..., None]:
    """Let the user say where the command works: `--local`, or one of the options that name a cluster."""
    return _with_options(command, _EITHER, lambda given: resolve(**given))


def on_cluster(command: Callable[Concatenate[Cluster, P], None]) -> Callable[..., None]:
    """Let the user name the cluster that the command works on; the current context without."""
    return _with_options(command, _CLUSTER, _cluster)


def resolve(
    *,
    local: bool = False,
    state_dir: Path | None = None,
    cluster: bool = False,
    context: str | None = None,
    kubeconfig: str | None = None,
    namespace: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Target:
    """Return the target that was said, by options or by $BACKUPSYNC_TARGET. Raises BackupSyncError."""
    named = {"--context": context, "--kubeconfig": kubeconfig, "--namespace": namespace}
    said = [
        *(["--cluster"] if cluster else []),
        *(option for option, value in named.items() if value is not None),
    ]
    if said and (local or state_dir is not None):
        here = "--local" if local else "--state-dir"
        raise BackupSyncError(f"{here} and {said[0]} exclude each other: name the one place the job runs in")
    usual = environment.get(VARIABLE, "")
    if usual not in ("", "local", "cluster"):
        raise BackupSyncError(f"${VARIABLE} = {usual!r}: must be local or cluster")
    if local or (not said and usual == "local"):
        return Local(state_root(state_dir))
    if said or usual == "cluster":
        return Cluster(context, kubeconfig, namespace)
    raise BackupSyncError(
        "say where the job runs: --local for processes of this machine, --cluster for the kubeconfig's "
        f"current context, --context CONTEXT for another; or once for all: export {VARIABLE}=cluster"
    )


def _cluster(given: dict[str, Any]) -> Cluster:
    return Cluster(given["context"], given["kubeconfig"], given["namespace"])


def _with_options(
    command: Callable[..., None],
    options: dict[str, tuple[Any, Any]],
    target: Callable[[dict[str, Any]], Target],
) -> Callable[..., None]:
    """Replace the command's first parameter by these options, in what typer sees of it."""

    def call(**given: Any) -> None:
        where = {name: given.pop(name) for name in options}
        command(target(where), **given)

    _, *own = inspect.signature(command).parameters.values()
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in options.items()
    ]
    kept = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    call.__doc__, call.__name__ = command.__doc__, command.__name__
    call.__signature__ = inspect.Signature([*kept, *added])  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in (*kept, *added)}
    return call
