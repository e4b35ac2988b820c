"""The one place where an error of the user's becomes words: stderr, exit code 2, no traceback."""

import sys
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from backupsync.errors import BackupSyncError
from backupsync.local.signals import Interrupted
from backupsync.spec.document import DocumentError

BAD_INPUT = 2
INTERRUPTED = 130


class Boundary(TyperGroup):
    """Group of commands whose errors are the user's to read."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; turn a BackupSyncError into a message."""
        try:
            return super().invoke(ctx)
        except BackupSyncError as error:
            fail(error)
        except (KeyboardInterrupt, Interrupted):
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # The reader of a pipe (`| head`) has had enough.
            sys.stderr.close()
            raise typer.Exit(0) from None


def say(text: str) -> None:
    """Tell the person, on stderr: stdout is the answer's."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)


def fail(error: BackupSyncError) -> NoReturn:
    """Say what is wrong, and end with exit code 2."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    if isinstance(error, DocumentError):
        show_problems(console, error)
    else:
        console.print(f"[bold red]error:[/] {escape(str(error))}")
    raise typer.Exit(BAD_INPUT) from None


def show_problems(console: Console, error: DocumentError) -> None:
    """Print every problem of a document: several as a table in a terminal, else a line each."""
    count = len(error.problems)
    console.print(f"[bold red]error:[/] {escape(error.source)}: {count} problem{'s' * (count > 1)}")
    if not console.is_terminal or count == 1:
        for problem in error.problems:
            console.print(f"  {escape(str(problem))}")
        return
    table = Table(box=None, padding=(0, 2), show_edge=False, header_style="dim")
    for heading, style in (("field", "cyan"), ("value", "yellow"), ("what would be valid", "")):
        table.add_column(heading, style=style, overflow="fold")
    for problem in error.problems:
        table.add_row(*(escape(part) for part in problem))
    Console(stderr=True, highlight=False).print(table)
