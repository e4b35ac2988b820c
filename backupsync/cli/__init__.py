"""The command line."""

import sys


def main() -> None:
    """Entry point of `backupsync`."""
    try:
        # Here, so that the package can be imported without its commands, and Ctrl-C meets no traceback.
        from backupsync.cli.app import app  # noqa: PLC0415

        app()
    except KeyboardInterrupt:
        sys.exit(130)
