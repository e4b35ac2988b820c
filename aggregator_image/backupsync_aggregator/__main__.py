"""`python -m backupsync_aggregator`: who this process is stands in its environment."""

import logging
import os
import sys

from backupsync.errors import BackupSyncError
from backupsync.exits import Exit
from backupsync.launch import AggregatorLaunch, from_environment

if __name__ == "__main__":
    try:
        launch = from_environment(AggregatorLaunch)
    except BackupSyncError as error:
        sys.stderr.write(f"backupsync aggregator: {error}\n")
        sys.exit(Exit.CONFIGURATION)
    from backupsync_aggregator.main import main  # late: who is misconfigured need not wait for torch

    code = main(launch)
    # Everything is written and closed; taking torch apart would cost seconds of a grace period.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
