"""The commands, gathered."""

from typing import Annotated

import typer

from backupsync import __version__
from backupsync.cli import change, inspect, plot, run, submit
from backupsync.cli.boundary import Boundary

app = typer.Typer(
    name="backupsync",
    cls=Boundary,
    help="Synchronous SGD with backup workers: N+b workers, the first N gradients make the update.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"backupsync {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


app.command("run", rich_help_panel="Train")(run.run)
app.command("submit", rich_help_panel="Train")(submit.submit)
app.command("validate", rich_help_panel="Train")(run.validate)
app.command("plot", rich_help_panel="Train")(plot.plot)
app.command("wait", rich_help_panel="Look")(submit.wait)
app.command("list", rich_help_panel="Look")(inspect.list_jobs)
app.command("status", rich_help_panel="Look")(inspect.status)
app.command("events", rich_help_panel="Look")(inspect.events)
app.command("explain", rich_help_panel="Look")(inspect.explain)
app.command("logs", rich_help_panel="Look")(inspect.logs)
app.command("metrics", rich_help_panel="Look")(inspect.metrics)
app.command("get-model", rich_help_panel="Look")(submit.get_model)
app.command("scale", rich_help_panel="Change")(change.scale)
app.command("suspend", rich_help_panel="Change")(change.suspend)
app.command("resume", rich_help_panel="Change")(change.resume)
app.command("delete", rich_help_panel="Change")(change.delete)
