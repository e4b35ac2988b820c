"""The trace and the report of a run that is over."""

import pytest

from backupsync.local.home import JobDirectory
from backupsync.local.outputs import Outputs


@pytest.fixture
def home(tmp_path) -> JobDirectory:
    directory = JobDirectory(tmp_path, "outputs")
    directory.path.mkdir(parents=True)
    return directory


def test_a_damaged_trace_costs_the_report_and_says_where_not_how_the_job_ended(home):
    home.trace_file.write_text("no line of a trace\n{}\n")
    outputs = Outputs(home, None, None)
    outputs.finish()
    assert outputs.report is None
    assert outputs.problem.startswith(f"no report: {home.trace_file}:1: ")


def test_without_a_trace_there_is_nothing_to_report_and_nothing_wrong(home):
    outputs = Outputs(home, None, None)
    outputs.finish()
    assert (outputs.report, outputs.problem) == (None, "")
