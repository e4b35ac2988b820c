"""The life of a job: deletion, live changes of N and b, suspension, and what is left at its end."""

import pytest

from backupsync.trace import Resized
from support.api import Object, name_of, path_of
from support.job import Job, alive, rank_of, uids
from support.manifest import endless, job_manifest
from support.rounds import check_rounds
from support.space import Space
from support.traces import read_directory, read_traces
from support.waiting import wait

OWNED = ("pod", "service", "secret", "budget")


def left_of(space: Space, job: str) -> list[str]:
    """Everything in the namespace that bears the job's name, but its Events."""
    return sorted(
        f"{kind}/{name_of(o)}"
        for kind in (*OWNED, "claim", "job")
        for o in space.api.list(kind, space.name)
        if name_of(o) == job or name_of(o).startswith(f"{job}-")
    )


def test_a_job_deleted_while_it_trains_leaves_nothing_but_its_claim(space: Space) -> None:
    job = space.start_durable("gone", **endless(), aggregation={"workers": 2, "backupWorkers": 1})
    job.wait_until_live(3)
    assert len(left_of(space, "gone")) == 9, left_of(space, "gone")
    assert not job.get()["metadata"].get("finalizers"), "nothing can hang on us"

    job.delete()

    wait(lambda: left_of(space, "gone") == ["claim/gone-checkpoint"], explain=job.explain)


@pytest.mark.full
def test_a_claim_goes_with_its_job_where_the_user_says_so(space: Space) -> None:
    job = space.start_durable("tidy", **endless(), checkpoint={"retention": "Delete"})
    job.wait_until_live(2)
    job.delete()
    wait(lambda: left_of(space, "tidy") == [], explain=job.explain)


def test_n_and_b_change_live_and_no_other_pod_restarts(space: Space) -> None:
    job = space.start("scaled", **endless(), aggregation={"workers": 2, "backupWorkers": 1})
    job.wait_until_live(3)
    first = uids(job.pods())

    space.api.kubectl("--namespace", space.name, "scale", "bsj/scaled", "--replicas=3")
    job.wait_until_live(4)
    job.wait(lambda: (a := job.answer()) is not None and (a.required, a.backups) == (3, 1))
    assert first < uids(job.pods())
    scale = space.api.raw("GET", _scale_path(space, job))
    assert b'"replicas":3' in scale.replace(b" ", b"")
    job.wait(lambda: job.status["replicas"] == 3)

    patch = '{"spec":{"aggregation":{"backupWorkers":0}}}'
    space.api.kubectl("-n", space.name, "patch", "bsj", "scaled", "--type=merge", "-p", patch)
    job.wait(lambda: (a := job.answer()) is not None and (a.required, a.backups) == (3, 0))
    job.wait(lambda: {rank_of(p) for p in job.pods("worker") if alive(p)} == {0, 1, 2})
    assert first <= uids(job.pods()), "ranks that stayed were left alone"
    job.wait_for_more(5)
    job.wait(lambda: len(sizes(job)) == 2)  # the trace is written once a second
    assert sizes(job) == [(3, 1), (3, 0)]
    assert check_rounds(read_traces(job)[1]) > 0


def test_a_suspended_job_has_no_pods_and_resumes_from_its_checkpoint(space: Space) -> None:
    slow = {"entrypoint": "linear:Linear", "args": {"step_seconds": 0.1}}
    training = {"iterations": 80}
    job = space.start_durable(
        "resting", program=slow, training=training, checkpoint={"everyIterations": 1000}
    )
    job.wait_for_iteration(10)

    job.patch(runPolicy={"suspend": True})

    job.wait(lambda: job.state == "Suspended" and not [p for p in job.pods() if not ended(p)])
    assert job.holds("Suspended")
    at = job.status["progress"]["iteration"]
    assert 10 <= at < 80
    job.patch(runPolicy={"suspend": False})
    job.wait_until_succeeded()
    assert not job.holds("Suspended")
    assert job.status["progress"]["iteration"] == 80
    if space.volumes.reachable:
        second = read_directory(space.volumes.directory("resting"))[2]
        assert check_rounds(second) == 80 - at, (
            "nothing was trained twice: suspension had written a checkpoint"
        )


@pytest.mark.full
def test_a_job_created_suspended_has_no_pods_until_it_is_resumed(space: Space) -> None:
    job = space.start("unborn", runPolicy={"suspend": True})
    job.wait(lambda: job.holds("Suspended"))
    assert job.pods() == []
    assert "startTime" not in job.status
    job.patch(runPolicy={"suspend": False})
    job.wait_until_succeeded()


@pytest.mark.full
def test_a_suspension_that_would_lose_everything_is_refused(space: Space) -> None:
    job = space.start("restless", **endless())
    job.wait(lambda: (job.status.get("progress") or {}).get("iteration", 0) > 0)  # the operator knows, too
    job.patch(runPolicy={"suspend": True})
    job.wait(lambda: job.told("SuspendRefused"))
    job.wait_for_more(3)
    assert job.state == "Running"
    assert not job.holds("Suspended")


@pytest.mark.full
def test_finished_is_finished(space: Space) -> None:
    job = space.start("over")
    job.wait_until_succeeded()
    wait(lambda: all(ended(pod) for pod in job.pods()), explain=job.explain)
    completed = job.status["completionTime"]
    for pod in job.pods():
        space.api.delete("pod", space.name, name_of(pod))
    job.patch(aggregation={"workers": 3})
    wait(lambda: job.status["observedGeneration"] == 2 and not job.pods(), explain=job.explain)
    after = space.start("after-it")  # the operator has had every occasion by the time this one is over
    after.wait_until_succeeded()
    assert job.pods() == []
    assert (job.state, job.status["completionTime"]) == ("Succeeded", completed)


@pytest.mark.full
def test_two_jobs_train_at_once_and_know_nothing_of_each_other(space: Space) -> None:
    jobs = [space.start(name, training={"iterations": 60}) for name in ("castor", "pollux")]
    for job in jobs:
        job.wait_until_succeeded()
        assert {r["crashesTotal"] for r in job.status["ranks"]} == {0}
        assert job.status["progress"]["iteration"] == 60
    secrets = [space.api.get("secret", space.name, f"{job.name}-key")["data"]["key"] for job in jobs]
    assert secrets[0] != secrets[1]


@pytest.mark.full
def test_a_finished_job_is_deleted_when_its_time_has_come(space: Space) -> None:
    job = space.start_durable("fleeting", runPolicy={"ttlSecondsAfterFinished": 3})
    wait(lambda: job.find() is None, explain=job.explain, failure=job.failed)
    wait(lambda: left_of(space, "fleeting") == ["claim/fleeting-checkpoint"], explain=job.explain)


@pytest.mark.full
@pytest.mark.parametrize(("policy", "kept"), [("Running", True), ("None", True), ("All", False)])
def test_pods_of_a_finished_job_stay_as_its_policy_says(space: Space, policy: str, kept: bool) -> None:
    job = space.start("finished", runPolicy={"cleanPodPolicy": policy})
    job.wait_until_succeeded()
    wait(lambda: all(ended(pod) for pod in job.pods()), explain=job.explain)
    if kept:
        assert len(job.pods()) == 3
        assert space.api.kubectl("--namespace", space.name, "logs", "finished-worker-0-1")
    else:
        wait(lambda: job.pods() == [], explain=job.explain)
    assert job.status["completionTime"]


@pytest.mark.full
def test_a_job_that_is_active_for_too_long_fails(space: Space) -> None:
    job = space.start("hurried", **endless(), runPolicy={"activeDeadlineSeconds": 8})
    condition = job.wait_until_failed()
    assert condition["reason"] == "DeadlineExceeded"
    wait(lambda: all(ended(pod) for pod in job.pods()), explain=job.explain)


@pytest.mark.full
def test_a_job_of_another_controller_is_left_alone(space: Space) -> None:
    theirs = space.start("theirs", runPolicy={"managedBy": "example.com/elsewhere"})
    ours = space.start("ours")
    ours.wait_until_succeeded()
    assert theirs.pods() == []
    assert left_of(space, "theirs") == ["job/theirs"]


@pytest.mark.full
def test_the_retained_model_is_whole_and_a_new_job_of_the_name_leaves_it_alone(space: Space) -> None:
    job = space.start_durable("kept", training={"iterations": 30})
    job.wait_until_succeeded()
    manifest = job_manifest("kept", **job.get()["spec"])
    job.delete()
    job.wait_until_gone()
    again = space.start("kept", manifest)
    again.wait_until_succeeded()
    if space.volumes.reachable:
        models = list(space.volumes.directory("kept").rglob("model.safetensors"))
        assert len(models) == 2, "each in a directory of its own"


def sizes(job: Job) -> list[tuple[int, int]]:
    """N and b as they were changed, by the trace."""
    return [(line.required, line.backups) for line in read_traces(job)[1] if isinstance(line, Resized)]


def ended(pod: Object) -> bool:
    """Whether nothing of a pod runs any more."""
    return pod["status"].get("phase") in ("Succeeded", "Failed")


def _scale_path(space: Space, job: Job) -> str:
    return path_of("job", space.name, job.name, "scale")
