"""A running job whose spec and pods do not change costs the API server nothing but its progress."""

import json

import pytest

from support.api import Object, name_of, path_of
from support.job import Job
from support.manifest import endless
from support.operator import Operator
from support.space import Space

WINDOW = 45
OTHERS = ("pod", "service", "secret", "claim", "budget", "configmap", "event")


def versions(space: Space) -> dict[str, str]:
    """ResourceVersion of every object in the namespace but the job."""
    return {
        f"{kind}/{name_of(o)}": o["metadata"]["resourceVersion"]
        for kind in OTHERS
        for o in space.api.list(kind, space.name)
    }


def watched(space: Space, job: Job) -> list[Object]:
    """Every version of the job that was written while the window lasted, oldest first."""
    start = job.get()["metadata"]["resourceVersion"]
    query = f"?watch=1&resourceVersion={start}&timeoutSeconds={WINDOW}&fieldSelector=metadata.name={job.name}"
    lines = space.api.raw("GET", path_of("job", space.name) + query, timeout=WINDOW + 30).splitlines()
    return [json.loads(line)["object"] for line in lines]


def still(status: Object) -> Object:
    """A status without what is progress: figures, and the planner's copy of them."""
    kept = {key: value for key, value in status.items() if key != "progress"}
    moving = ("progress", "observed_at", "active_seconds", "ranks")
    kept["memory"] = {k: v for k, v in status["memory"].items() if k not in moving}
    return kept


@pytest.mark.full
def test_a_running_job_is_written_for_its_progress_only(space: Space, operator: Operator) -> None:
    job = space.start("quiet", **endless(), aggregation={"workers": 2, "backupWorkers": 1})
    job.wait_until_live(3)
    progress = job.wait(lambda: job.status.get("progress"))
    job.wait(lambda: job.state == "Running" and job.status["progress"] != progress)
    before, first = versions(space), job.get()

    seen = watched(space, job)

    assert versions(space) == before, "nothing else was written, and no Event was repeated"
    assert seen, "progress is written"
    most = WINDOW / float(operator.setting("PROGRESS_SECONDS")) + 1
    assert len(seen) <= most, "progress is written at a bounded rate"
    iterations = [o["status"]["progress"]["iteration"] for o in seen]
    assert iterations == sorted(set(iterations)), "each write tells something new"
    for version in seen:
        assert version["spec"] == first["spec"]
        assert still(version["status"]) == still(first["status"])


@pytest.mark.full
def test_events_are_deduplicated(space: Space) -> None:
    job = space.start("eventful", training={"iterations": 60})
    job.wait_until_succeeded()
    told = [(event.reason, event.message) for event in job.events()]
    assert len(told) == len(set(told))
    reasons = [reason for reason, _ in told]
    assert {"Running", "Succeeded"} & set(reasons) or "Completed" in reasons
    assert all(event.times <= 2 for event in job.events())
