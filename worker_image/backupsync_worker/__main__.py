"""`python -m backupsync_worker`: one worker, as its environment says (BACKUPSYNC_WORKER)."""

from backupsync import process
from backupsync.errors import BackupSyncError
from backupsync.exits import Exit
from backupsync.launch import WorkerLaunch, from_environment
from backupsync_worker.restart import Origin, counted

if __name__ == "__main__":
    process.begin()
    origin = Origin.here()
    try:
        launch = counted(from_environment(WorkerLaunch))
    except BackupSyncError as error:
        process.refuse("worker", error)
    from backupsync_worker.main import main  # late: it loads torch

    code = main(launch)
    if code == Exit.RESTART and launch.restart_in_place == "exec":
        code = origin.start_again(launch.start + 1)
    process.end(code)
