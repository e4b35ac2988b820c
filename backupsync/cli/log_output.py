"""Whose logs `backupsync logs` prints, and how a line shows whose it is."""

from typing import Final, Literal

import typer
from msgspec import Struct

from backupsync.cli import local_jobs
from backupsync.cli.answers import print_line
from backupsync.cli.options import Output
from backupsync.cluster import Client, LogLine
from backupsync.errors import BackupSyncError
from backupsync.local.home import JobDirectory

_COLOURS: Final = ("cyan", "magenta", "blue", "yellow", "green", "red")


class LogChoice(Struct, frozen=True):
    """What the user asked for."""

    rank: int | None
    aggregator: bool
    everyone: bool
    attempt: int | None
    previous: bool
    follow: bool

    def check(self) -> None:
        """Raise BackupSyncError for options that exclude each other."""
        whose = {"--rank": self.rank is not None, "--aggregator": self.aggregator, "--all": self.everyone}
        which = {"--attempt": self.attempt is not None, "--previous": self.previous}
        for group in (whose, which, {"--previous": self.previous, "--follow": self.follow}):
            given = [option for option, said in group.items() if said]
            if len(given) > 1:
                raise BackupSyncError(f"logs: {' and '.join(given)} exclude each other; say one of them")

    @property
    def role(self) -> Literal["aggregator", "worker"] | None:
        """Whose, None for everyone's."""
        return None if self.everyone else ("worker" if self.rank is not None else "aggregator")


def print_local_logs(directory: JobDirectory, choice: LogChoice, output: Output) -> None:
    """Print logs of a local job."""
    if output is Output.JSON:
        raise BackupSyncError(
            "logs: -o json is for clusters; local processes write JSON by --log-format json"
        )
    if not choice.everyone:
        path = local_jobs.log_file(directory, choice.rank, choice.attempt, choice.previous)
        local_jobs.print_log(directory, path, choice.follow)
        return
    if choice.attempt is not None or choice.previous:
        raise BackupSyncError("logs: --all prints everyone's newest log; name one by --rank R for another")
    local_jobs.print_logs(directory, choice.follow, lambda stem, line: f"{stem} | {line}")


def print_cluster_logs(client: Client, job: str, choice: LogChoice, output: Output) -> None:
    """Print logs of a job on a cluster."""
    lines = client.logs(
        job,
        rank=choice.rank,
        role=choice.role,
        attempt=choice.attempt,
        previous=choice.previous,
        follow=choice.follow,
    )
    for line in lines:
        if output is Output.JSON:
            print_line(line)
        elif choice.everyone:
            print_prefixed(job, line)
        else:
            typer.echo(line.text)


def print_prefixed(job: str, line: LogLine) -> None:
    """Print a line with whose it is, in a colour of its own where there is a terminal."""
    whose = line.pod.removeprefix(f"{job}-")
    colour = "white" if line.role == "aggregator" else _COLOURS[line.rank % len(_COLOURS)]
    typer.echo(typer.style(f"{whose:<14} | ", fg=colour) + line.text)
