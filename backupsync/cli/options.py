"""Options that several commands share, and the target that a command works on: never guessed."""

from pathlib import Path
from typing import Annotated

import typer

from backupsync.errors import BackupSyncError
from backupsync.local.home import JobDirectory, state_root

JobName = Annotated[str, typer.Argument(metavar="JOB", help="Name of the job (metadata.name).")]
Manifest = Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The BackupSyncJob manifest.")]
Local = Annotated[bool, typer.Option("--local", help="The job runs as local processes.")]
Context = Annotated[
    str | None,
    typer.Option(
        "--context", metavar="CONTEXT", help="The job runs on the cluster of this kubeconfig context."
    ),
]
StateDir = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        metavar="DIRECTORY",
        help="Directory of local state. (default: $BACKUPSYNC_HOME, else $XDG_STATE_HOME/backupsync, "
        "else ~/.local/state/backupsync)",
        show_default=False,
    ),
]


def require_local(local: bool, context: str | None) -> None:
    """Raise BackupSyncError unless the command was told, unmistakably, to work on local processes."""
    if local and context is not None:
        raise BackupSyncError("--local and --context exclude each other: name the one place the job runs in")
    if context is not None:
        raise BackupSyncError(
            f"--context {context}: this version knows no cluster; the cluster client comes with the "
            "operator. Use --local for jobs that `backupsync run` started here"
        )
    if not local:
        raise BackupSyncError(
            "say where the job runs: --local for processes of this machine, --context CONTEXT for a cluster"
        )


def known_job(name: str, local: bool, context: str | None, state_dir: Path | None) -> JobDirectory:
    """Return the directory of a local job that exists. Raises BackupSyncError."""
    require_local(local, context)
    directory = JobDirectory(state_root(state_dir), name)
    directory.require()
    return directory
