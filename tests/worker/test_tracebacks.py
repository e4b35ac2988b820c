"""Tracebacks begin where the user's own code does."""

import runpy
import traceback

import pytest

from backupsync_worker.evaluation import numbers
from backupsync_worker.tracebacks import trimmed


def lines_of(error):
    return "".join(traceback.format_exception(trimmed(error)))


def test_frames_above_the_script_are_left_out(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text("def loss():\n    raise KeyError('label')\nloss()\n")
    with pytest.raises(KeyError) as caught:
        runpy.run_path(str(script))
    error = caught.value.with_traceback(caught.tb.tb_next)  # without this test's own frame
    assert "runpy" in "".join(traceback.format_exception(error))
    said = lines_of(error)
    assert said.count("mine.py") == 2
    assert "runpy" not in said
    assert said.endswith("KeyError: 'label'\n")


def test_a_fault_of_our_own_keeps_its_whole_traceback():
    with pytest.raises(Exception, match="must give a dict") as caught:
        numbers("evaluate()", 0.5)
    error = caught.value.with_traceback(caught.tb.tb_next)
    assert "evaluation.py" in lines_of(error)
