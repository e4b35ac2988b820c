"""The command line."""


def main() -> None:
    """Entry point of `backupsync`."""
    # Here, so that the package can be imported without its commands.
    from backupsync.cli.app import app  # noqa: PLC0415

    app()
