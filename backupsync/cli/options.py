"""Options that several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

PANEL: Final = "Where the job runs"
"""Heading of the options that name the place a command works in."""


class Output(StrEnum):
    """How a command answers."""

    TEXT = "text"
    JSON = "json"


JobName = Annotated[str, typer.Argument(metavar="JOB", help="Name of the job (metadata.name).")]
Manifest = Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The BackupSyncJob manifest.")]
OutputOption = Annotated[Output, typer.Option("-o", "--output", help="text or json.")]
StateDir = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        metavar="DIRECTORY",
        rich_help_panel=PANEL,
        help="Directory of local state. (default: $BACKUPSYNC_HOME, else $XDG_STATE_HOME/backupsync, "
        "else ~/.local/state/backupsync)",
        show_default=False,
    ),
]
