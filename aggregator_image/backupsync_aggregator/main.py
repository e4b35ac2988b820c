"""The aggregator's process: from its launch to its exit code."""

import logging
import socket
import traceback
from pathlib import Path

import torch
from pydantic import ValidationError
from setproctitle import setproctitle

from backupsync import logs
from backupsync.errors import BackupSyncError, CheckpointError, Fenced
from backupsync.exits import Exit
from backupsync.launch import AggregatorLaunch
from backupsync.spec import BackupSyncJob
from backupsync.termination import write_last_words
from backupsync_aggregator.checkpoints.checkpoint import CheckpointDirectory, Loaded
from backupsync_aggregator.network.transport import CannotBind
from backupsync_aggregator.service import CannotWrite, Service

_log = logging.getLogger(__name__)


def main(launch: AggregatorLaunch) -> int:
    """Serve the job until it ends; return the exit code (see `backupsync.exits`)."""
    logs.configure(launch.log_format, "aggregator", job=launch.job, epoch=launch.epoch)
    setproctitle(f"backupsync aggregator {launch.job}")
    try:
        return _serve(launch)
    except Fenced as error:
        return _give_up(Exit.FENCED, error)
    except CannotBind as error:
        return _give_up(Exit.CONFIGURATION, error)
    except CannotWrite as error:
        return _give_up(Exit.CANNOT_WRITE, error)
    except BackupSyncError as error:
        return _give_up(Exit.BAD_INPUT, error)
    except MemoryError as error:
        return _give_up(Exit.OUT_OF_MEMORY, error)
    except Exception:
        _log.exception("a fault of ours ends this aggregator")
        write_last_words(traceback.format_exc())
        return Exit.CRASHED


def _serve(launch: AggregatorLaunch) -> int:
    job = _job_of(launch)
    torch.set_num_threads(launch.threads)
    directory, loaded = _take_over(launch, job)
    service = Service(launch, job, directory, loaded)
    try:
        return service.run()
    finally:
        service.close()


def _job_of(launch: AggregatorLaunch) -> BackupSyncJob:
    try:
        return BackupSyncJob.model_validate(launch.manifest)
    except ValidationError as error:
        raise BackupSyncError(f"the manifest given to the aggregator is not valid: {error}") from error


def _take_over(
    launch: AggregatorLaunch, job: BackupSyncJob
) -> tuple[CheckpointDirectory | None, Loaded | None]:
    """Claim the checkpoint directory and read the newest checkpoint. Never restarts from 0 in silence."""
    if launch.checkpoint_directory is None:
        if _must_go_on(launch, followed=False):
            raise BackupSyncError(
                f"epoch {launch.epoch} cannot go on without spec.checkpoint.path: what the aggregator before "
                "it had trained is lost; set one, or start the job anew"
            )
        return None, None
    path = Path(launch.checkpoint_directory)
    try:
        directory = CheckpointDirectory(path, job.spec.checkpoint.keep)
        followed = directory.highest_claim()
        _refuse_another_jobs(directory, launch)
        directory.claim(launch.epoch, f"{launch.uid} on {socket.gethostname()}")
    except CheckpointError as error:
        raise CannotWrite(str(error)) from error
    loaded = directory.load_newest(job.spec)
    for skipped in loaded.skipped if loaded else ():
        _log.warning("checkpoint skipped: %s", skipped)
    if loaded is None and _must_go_on(launch, followed=followed > 0):
        raise BackupSyncError(
            f"epoch {launch.epoch} finds no checkpoint in {path}, though there must be one: it would "
            "restart from 0; give it the directory its predecessor wrote to, or start the job anew"
        )
    if loaded is None and launch.epoch > 1:
        _log.warning("epoch %d starts from 0: nobody before it got as far as checkpoint 0", launch.epoch)
    return directory, loaded


def _refuse_another_jobs(directory: CheckpointDirectory, launch: AggregatorLaunch) -> None:
    """Never train on from what another job left behind, nor over it. Raises CannotWrite."""
    owner = directory.owner()
    if owner is not None and owner.split(" ")[0] != launch.uid:
        raise CannotWrite(
            f"{directory.path}: holds the checkpoints of another job, or of an earlier one of this name "
            f"(uid {owner}); name a directory of its own in spec.checkpoint.path, or move them away"
        )


def _must_go_on(launch: AggregatorLaunch, *, followed: bool) -> bool:
    """Whether starting from 0 would lose what an earlier epoch trained.

    Whoever started us may have seen it train. Else a claim in the directory says that it is the right one,
    and that nobody got as far as checkpoint 0.
    """
    return launch.epoch > 1 and (not followed if launch.begun is None else launch.begun)


def _give_up(code: Exit, error: BaseException) -> int:
    _log.error("%s", error)
    write_last_words(str(error) or type(error).__name__)
    return int(code)
