"""What only torch can say about a manifest, asked in a fork of the preloaded forkserver.

So `backupsync run` refuses a misspelt optimizer before anything is written, and imports torch only once.
"""

import multiprocessing
from importlib import import_module
from multiprocessing.connection import Connection

from backupsync.local.forking import start_process
from backupsync.spec import BackupSyncJob, Problem


def torch_problems(job: BackupSyncJob) -> list[Problem]:
    """Return the problems of optimizer and schedule; none where torch is not installed."""
    try:
        # Not named in an import statement: the roles come in packages of their own.
        validation = import_module("backupsync_aggregator.tensors.validation")
    except ImportError:
        return []
    return [Problem(*problem) for problem in validation.validate_training(job.spec.training)]


def torch_problems_in_fork(job: BackupSyncJob) -> list[Problem]:
    """Return `torch_problems` of a fork; none when the fork dies, since the aggregator asks again."""
    receiver, sender = multiprocessing.get_context("forkserver").Pipe(duplex=False)
    process = start_process(_answer, (sender, job.model_dump_json(by_alias=True)), "preflight")
    sender.close()
    try:
        return [Problem(*problem) for problem in receiver.recv()]
    except EOFError:
        return []
    finally:
        process.join()
        process.close()
        receiver.close()


def _answer(sender: Connection, manifest: str) -> None:
    with sender:
        sender.send([tuple(p) for p in torch_problems(BackupSyncJob.model_validate_json(manifest))])
