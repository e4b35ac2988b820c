"""`python3 -m backupsync_operator`: the operator, configured by BACKUPSYNC_* variables."""

import asyncio
import logging
import sys

from backupsync.errors import BackupSyncError
from backupsync.logs import configure
from backupsync_operator.app import Operator
from backupsync_operator.settings import Settings

_log = logging.getLogger("backupsync_operator")


def main() -> int:
    """Run until stopped; 0 where that was asked for, else non-zero, so that it is started again."""
    try:
        settings = Settings.from_environment()
    except BackupSyncError as error:
        print(f"backupsync-operator: {error}", file=sys.stderr)  # noqa: T201 -- there is no log yet
        return 78
    configure(settings.log_format, "operator", level=logging.getLevelNamesMapping()[settings.log_level])
    try:
        asyncio.run(Operator(settings).run())
    except BackupSyncError as error:
        _log.error("the operator ends: %s", error)
        return 1
    except Exception:
        _log.exception("the operator ends on a bug")
        return 70
    return 0


if __name__ == "__main__":
    sys.exit(main())
