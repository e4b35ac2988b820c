"""The command line."""

import sys

from backupsync.exits import Exit


def main() -> None:
    """Entry point of `backupsync`."""
    try:
        # Here, so that the package can be imported without its commands, and Ctrl-C meets no traceback.
        from backupsync.cli.app import app  # noqa: PLC0415

        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "backupsync":
            raise
        print(  # noqa: T201
            f"backupsync: the command line needs the module {error.name}, which is not installed: "
            "install backupsync with its extra, as in pip install 'backupsync[local]' or '.[local]'",
            file=sys.stderr,
        )
        sys.exit(Exit.CONFIGURATION)
