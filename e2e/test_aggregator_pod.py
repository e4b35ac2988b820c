"""The aggregator's pod is deleted: training goes on from its checkpoint, or ends with a word on why not."""

import pytest

from backupsync.trace import Resumed
from support.api import name_of
from support.job import alive, attempt_of, uids
from support.manifest import endless
from support.rounds import check_rounds
from support.space import Space
from support.traces import read_traces


def test_a_deleted_aggregator_resumes_from_its_checkpoint(space: Space) -> None:
    job = space.start_durable("resuming", **endless(), checkpoint={"everyIterations": 5})
    job.wait_for_iteration(12)
    before, workers, old = job.iteration(), job.pods("worker"), job.aggregator()
    assert old is not None

    space.api.delete("pod", space.name, name_of(old))

    job.wait(lambda: (a := job.answer()) is not None and a.epoch == 2 and a.iteration > before)
    job.wait(lambda: check_rounds(read_traces(job)[2]) > 0)  # the trace is written once a second
    traces = read_traces(job)
    resumed = next(line for line in traces[2] if isinstance(line, Resumed))
    assert resumed.iteration >= before - 5, "at most everyIterations are lost"
    assert check_rounds(traces[1]) >= before
    pod = job.aggregator()
    assert pod is not None
    assert attempt_of(pod) == 2
    crashes = {r["rank"]: r["crashes"] for r in job.status["ranks"]}
    assert set(crashes.values()) == {0}, "the workers are not blamed"
    assert uids(workers) == uids(p for p in job.pods("worker") if alive(p)), "they waited and joined again"
    job.wait(lambda: job.told("AggregatorReplaced"))


@pytest.mark.full
def test_without_a_durable_checkpoint_the_job_says_so_instead_of_starting_anew(space: Space) -> None:
    job = space.start("forgetful", **endless())
    job.wait(lambda: (job.status.get("progress") or {}).get("iteration", 0) > 0)
    assert "emptyDir" in job.condition("Accepted")["message"], "it was said before"
    pod = job.aggregator()
    assert pod is not None
    space.api.delete("pod", space.name, name_of(pod))
    condition = job.wait_until_failed()
    assert condition["reason"] == "NoCheckpoint"
    assert "volumeClaimTemplate" in condition["message"]
