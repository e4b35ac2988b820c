"""A worker process from start to exit code, through either door: a Program class or one's own script."""

import logging
import os
import runpy
import sys
import traceback
from pathlib import Path
from typing import Final

import torch
from setproctitle import setproctitle

from backupsync import logs
from backupsync.errors import BackupSyncError, ProgramError, Refused
from backupsync.exits import Exit
from backupsync.launch import WorkerLaunch, to_environment
from backupsync.spec import BackupSyncJob, ProgramSpec
from backupsync.termination import write_last_words
from backupsync_worker.connection.membership import StartAgain, exit_code
from backupsync_worker.program import Program, load_program, make_dataset, make_model
from backupsync_worker.session import Session, current, join
from backupsync_worker.signals import STOP
from backupsync_worker.tracebacks import trimmed

_OURS: Final = (Exit.RESTART, Exit.FENCED)
"""Codes that count against no budget: a program that exits with one of them would be started for ever."""

_log = logging.getLogger(__name__)


def main(launch: WorkerLaunch) -> int:
    """Run one worker to its end; return the code that its process should exit with (backupsync.exits)."""
    logs.configure(launch.log_format, "worker", job=launch.job, rank=launch.rank, attempt=launch.attempt)
    setproctitle(f"backupsync worker {launch.job} {launch.rank}")
    STOP.install()
    torch.set_num_threads(launch.threads)
    try:
        program = BackupSyncJob.model_validate(launch.manifest).spec.program
        if program.script is None:
            return run_program(launch, program)
        return run_script(launch, program)
    except BaseException as error:
        return _code_of(error)


def run_program(launch: WorkerLaunch, spec: ProgramSpec) -> int:
    """Train a Program, by the same calls that a script makes."""
    with join(launch) as session:
        train(session, load_program(spec, launch.program_directory))
        return _end_of(session)


def train(session: Session, program: Program) -> None:
    """The loop of a Program."""
    model = make_model(program, session.seed)
    evaluate, collate = getattr(program, "evaluate", None), getattr(program, "collate", None)
    model = session.attach(model, make_dataset(program), evaluate, collate)
    for _ in session:
        session.push(program.loss(model, session.batch()))


def run_script(launch: WorkerLaunch, spec: ProgramSpec) -> int:
    """Run the user's script, which calls `backupsync_worker.join()` itself."""
    assert spec.script is not None
    path = (Path(launch.program_directory) / spec.script).resolve()
    if not path.is_file():
        raise ProgramError(f"spec.program.script = {spec.script!r}: there is no file {path}")
    os.environ.update(to_environment(launch))
    sys.argv = [str(path)]
    sys.path.insert(0, str(path.parent))
    try:
        runpy.run_path(str(path), run_name="__main__")
    finally:
        session = current()
        if session is not None:
            session.close()
    if session is None:
        raise ProgramError(
            f"spec.program.script = {spec.script!r}: never joined; it must call backupsync_worker.join()"
        )
    return _end_of(session)


def _end_of(session: Session) -> int:
    if session.exit_code is None:
        return _fail(
            Exit.CRASHED,
            "the program ended before the job did: its loop must go on until the session ends it",
        )
    return session.exit_code


def _code_of(error: BaseException) -> int:
    """Say what went wrong, and how the process should exit."""
    match error:
        case SystemExit():
            return _code_of_exit(error)
        case ProgramError():
            return _fail(Exit.BAD_INPUT, str(error), error.__cause__)
        case Refused():
            return _fail(exit_code(error), str(error))
        case StartAgain():
            _log.warning("%s", error)
            return Exit.RESTART
        case BackupSyncError():
            return _fail(Exit.CONFIGURATION, str(error))
    if _is_out_of_memory(error):
        return _fail(Exit.OUT_OF_MEMORY, "out of memory", error)
    return _fail(Exit.CRASHED, f"the program raised {type(error).__name__}", error)


def _code_of_exit(error: SystemExit) -> int:
    session = current()
    if error.code is None or error.code == 0:
        return Exit.SUCCESS if session is None else _end_of(session)
    if not isinstance(error.code, int):
        return _fail(Exit.CRASHED, str(error.code))
    if error.code in _OURS and (session is None or session.exit_code != error.code):
        return _fail(Exit.CRASHED, f"the program exited with {error.code}, a code that it may not use")
    return _fail(error.code, f"the program exited with {error.code}")


def _fail(code: int, message: str, cause: BaseException | None = None) -> int:
    """Log `message` with the traceback of `cause`, leave both as last words, and return `code`."""
    cause = cause and trimmed(cause)
    _log.error("%s", message, exc_info=cause)
    write_last_words("\n".join([message, *traceback.format_exception(cause)] if cause else [message]))
    return code


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
