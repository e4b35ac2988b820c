"""`python -m backupsync_worker`: one worker, as its environment says (BACKUPSYNC_WORKER)."""

import sys

from backupsync.errors import BackupSyncError
from backupsync.exits import Exit
from backupsync.launch import WorkerLaunch, from_environment
from backupsync_worker.main import main

if __name__ == "__main__":
    try:
        launch = from_environment(WorkerLaunch)
    except BackupSyncError as error:
        print(error, file=sys.stderr)  # noqa: T201 -- nobody has said how to log yet
        sys.exit(Exit.CONFIGURATION)
    sys.exit(main(launch))
