"""`python -m backupsync_aggregator`: one aggregator, as its environment says (BACKUPSYNC_AGGREGATOR)."""

from backupsync import process
from backupsync.errors import BackupSyncError
from backupsync.launch import AggregatorLaunch, from_environment

if __name__ == "__main__":
    process.begin()
    try:
        launch = from_environment(AggregatorLaunch)
    except BackupSyncError as error:
        process.refuse("aggregator", error)
    from backupsync_aggregator.main import main  # late: it loads torch

    process.end(main(launch))
