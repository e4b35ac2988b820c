"""What a run leaves behind for its user: the trace and the report, checked before anything starts."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from backupsync.errors import BackupSyncError
from backupsync.local.home import JobDirectory
from backupsync.report import Report, from_trace
from backupsync.trace import read_trace


class Outputs:
    """The trace and the report of one run, in the state directory and where the user wants them."""

    def __init__(self, directory: JobDirectory, trace: Path | None, report: Path | None) -> None:
        self._directory = directory
        self._trace = trace
        self._report = report
        self.report: Report | None = None
        """The report, once the run is over and has a trace."""
        self.problem = ""
        """Why there is no report though there was a run."""

    @property
    def trace_path(self) -> Path:
        """Where the user finds the trace."""
        return self._trace or self._directory.trace_file

    @property
    def report_path(self) -> Path:
        """Where the user finds the report."""
        return self._report or self._directory.report_file

    def check(self) -> None:
        """Raise BackupSyncError when one of them could not be written at the end."""
        for option, path in (("--trace", self._trace), ("--report", self._report)):
            if path is None:
                continue
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise BackupSyncError(f"{option} {path}: cannot be written: {error.strerror}") from error
            if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
                why = "is a directory" if path.is_dir() else "cannot be written"
                raise BackupSyncError(f"{option} {path}: {why}")

    def link_trace(self) -> None:
        """Let the user's trace grow while the run lasts, where one file may have two names."""
        if self._trace is None:
            return
        self._directory.trace_file.touch()
        self._trace.unlink(missing_ok=True)
        with suppress(OSError):  # another file system: it is copied at the end
            self._trace.hardlink_to(self._directory.trace_file)

    def finish(self) -> None:
        """Write the report and, where it could not be linked, the trace. The job's end hangs on neither."""
        try:
            self._finish()
        except (BackupSyncError, OSError) as error:
            self.problem = f"no report: {error}"

    def _finish(self) -> None:
        source = self._directory.trace_file
        if not source.exists() or not source.stat().st_size:
            return
        if self._trace is not None and not (self._trace.exists() and self._trace.samefile(source)):
            shutil.copyfile(source, self._trace)
        self.report = from_trace(read_trace(source))
        for path in {self._directory.report_file, self.report_path}:
            self.report.write(path)
