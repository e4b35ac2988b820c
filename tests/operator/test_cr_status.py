"""The status of a custom resource: the memory whole, and what people read."""

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from merge_patch import merged
from msgspec import structs
from rendering import context_of

from backupsync.control import AggregatorStatus, Desired, DesiredMember, MemberStatus
from backupsync.lifecycle import bare, plan
from backupsync.lifecycle.types import (
    Condition,
    JobStatus,
    MemberIntent,
    Observed,
    RankHistory,
    Replica,
    ReplicaId,
    RestartIntent,
)
from backupsync_operator.cr_status import View, decisions_of, difference, memory_of, status_of, time_of
from backupsync_operator.render import Images

NOW = 1_800_000_000.0
JOB = context_of().job
IMAGES = Images(worker="w", aggregator="a")


def view(replicas: tuple[Replica, ...] = (), explanation: tuple[str, ...] = (), ready: bool = True) -> View:
    return View(JOB, 4, replicas, IMAGES, "0.1.0", explanation, ready)


def status(memory: JobStatus, **more: Any) -> dict[str, Any]:
    made = status_of(memory, view(**more), None, NOW)
    json.dumps(made, allow_nan=False)
    return made


COUNT = st.integers(0, 2**40)
TIME = st.floats(0, 4e9)
TEXT = st.text(max_size=12)
FLOAT = st.floats(allow_nan=False, allow_infinity=False)
MEMBERS = st.builds(
    MemberStatus,
    rank=COUNT,
    attempt=COUNT,
    start=COUNT,
    state=st.sampled_from(["Live", "Lost"]),
    phase=st.just(""),
)
ANSWERS = st.builds(
    AggregatorStatus,
    job=TEXT,
    uid=TEXT,
    epoch=COUNT,
    phase=st.sampled_from(["Joining", "Training", "Succeeded"]),
    applied=st.tuples(COUNT, COUNT),
    iteration=COUNT,
    rate=FLOAT,
    loss=st.none() | FLOAT,
    evaluation=st.dictionaries(TEXT, FLOAT, max_size=3),
    members=st.lists(MEMBERS, max_size=3).map(tuple),
)
DESIRED = st.builds(
    Desired,
    term=COUNT,
    generation=COUNT,
    members=st.lists(
        st.builds(DesiredMember, rank=COUNT, attempt=COUNT, candidate=st.booleans()), max_size=3
    ).map(tuple),
    workers=COUNT,
    backup_workers=COUNT,
    suspend=st.booleans(),
    restart=st.lists(st.tuples(COUNT, COUNT), max_size=2).map(tuple),
)


def some(kind: Any, **fields: Any) -> Any:
    """Any instance of `kind`, every field drawn from its type, but for those given."""
    drawn = {}
    for field in structs.fields(kind):
        drawn[field.name] = fields[field.name] if field.name in fields else st.from_type(field.type)
    return st.builds(kind, **drawn)


MEMORIES = some(
    JobStatus,
    conditions=st.lists(some(Condition, last_transition_time=TIME), max_size=3).map(tuple),
    members=st.lists(some(MemberIntent), max_size=3).map(tuple),
    ranks=st.lists(
        some(RankHistory, retry_at=TIME, lost_since=st.none() | TIME, left_since=st.none() | TIME), max_size=3
    ).map(tuple),
    restarts=st.lists(some(RestartIntent), max_size=2).map(tuple),
    desired=st.none() | DESIRED,
    progress=st.none() | ANSWERS,
    pending_told=st.lists(TEXT, max_size=2).map(tuple),
    **{
        field.name: st.none() | TIME if field.default is None else TIME
        for field in structs.fields(JobStatus)
        if field.name.endswith(("_time", "_at", "_since", "_seconds"))
    },
)


@settings(max_examples=60, deadline=None)
@given(memory=MEMORIES)
def test_the_memory_survives_whole(memory: JobStatus) -> None:
    kept = json.loads(json.dumps(status_of(memory, view(), None, NOW), allow_nan=False))
    assert memory_of(kept) == memory


@settings(max_examples=25, deadline=None)
@given(memory=MEMORIES)
def test_whole_seconds_may_come_back_as_integers(memory: JobStatus) -> None:
    text = json.dumps(status_of(memory, view(), None, NOW)["memory"])
    as_go_writes_it = json.loads(
        text, parse_float=lambda s: int(float(s)) if float(s).is_integer() else float(s)
    )
    assert memory_of({"memory": as_go_writes_it}) == memory


def test_no_memory_yet_is_an_empty_one():
    assert memory_of(None) == memory_of({}) == memory_of({"memory": None}) == JobStatus()


def test_fields_of_a_later_operator_are_ignored():
    memory = JobStatus(
        desired=Desired(term=1, generation=2, members=(DesiredMember(0, 1),), workers=1, backup_workers=0)
    )
    kept = status(memory)["memory"]
    kept["tomorrow"] = kept["desired"]["tomorrow"] = kept["desired"]["members"][0]["tomorrow"] = {"x": 1}
    assert memory_of({"memory": kept}) == memory


@pytest.mark.parametrize("kept", [{"phase": "Nonsense"}, {"members": 3}, {"desired": {"term": "x"}}])
def test_a_memory_that_no_operator_wrote_is_refused(kept):
    with pytest.raises(msgspec.ValidationError):
        memory_of({"memory": kept})


def test_numbers_that_json_cannot_say_stay_out():
    answer = AggregatorStatus(
        job="d",
        uid="u",
        epoch=1,
        phase="Training",
        loss=math.nan,
        rate=math.inf,
        evaluation={"a": math.nan, "b": 1.0},
    )
    made = status(JobStatus(progress=answer))
    assert "loss" not in made["progress"]
    assert "rate" not in made["progress"]
    assert made["progress"]["evaluation"] == {"b": 1.0}
    assert memory_of(made).progress == structs.replace(answer, loss=None, rate=0.0, evaluation={"b": 1.0})


def big(workers: int) -> dict[str, Any]:
    job = context_of({"aggregation": {"workers": workers, "backupWorkers": 0}}).job
    first = plan(job, Observed(pods=True, durable=True), JobStatus(), NOW)
    members = tuple(
        MemberStatus(
            rank=r,
            attempt=1,
            start=0,
            state="Live",
            phase="compute",
            accepted=10**6,
            commits=10**6,
            busy_p50_seconds=0.123456,
        )
        for r in range(workers)
    )
    replicas = tuple(
        Replica(id=ReplicaId("worker", r, 1), phase="Running", node=f"node-{r:03}.cluster.local")
        for r in range(workers)
    )
    answer = AggregatorStatus(
        job="digits", uid="u", epoch=1, phase="Training", iteration=5, members=members, required=workers
    )
    observed = Observed(pods=True, durable=True, replicas=replicas, aggregator=answer)
    made = plan(job, observed, first.status, NOW + 60)
    whole = View(job, 1, replicas, IMAGES, "0.1.0", made.explanation, aggregator_ready=True)
    return status_of(made.status, whole, None, NOW)


@pytest.mark.parametrize(("workers", "memory", "whole"), [(200, 48_000, 100_000), (1000, 240_000, 500_000)])
def test_a_job_of_many_workers_fits_into_its_object(workers, memory, whole):
    """An API server takes 1.5 MiB of etcd and 3 MiB of request; a status is to be far from either."""
    made = big(workers)
    assert len(json.dumps(made["memory"])) < memory
    assert len(json.dumps(made)) < whole


def test_times_are_rfc_3339_and_the_generation_is_told():
    memory = JobStatus(
        start_time=NOW,
        conditions=(
            Condition(type="Ready", status="True", reason="Training", last_transition_time=NOW + 0.9),
        ),
    )
    made = status(memory)
    assert made["observedGeneration"] == 4
    assert made["startTime"] == "2027-01-15T08:00:00Z" == time_of(NOW)
    assert "completionTime" not in made
    condition = made["conditions"][0]
    assert condition["lastTransitionTime"] == "2027-01-15T08:00:00Z"
    assert condition["observedGeneration"] == 4


def test_the_shown_counts_are_those_of_now():
    memory = JobStatus(
        phase="Running",
        aggregator_attempt=1,
        members=(
            MemberIntent(rank=0, attempt=2), MemberIntent(rank=1, attempt=1),
            MemberIntent(rank=1, attempt=2, candidate=True),
        ),
        ranks=(
            RankHistory(
                rank=0, attempts=2, crashes=1, crashes_total=5, losses_total=2, evictions=3, restarts_total=1,
            ),
        ),
        progress=AggregatorStatus(
            job="d", uid="u", epoch=1, phase="Training", required=2,
            members=(MemberStatus(rank=0, attempt=2, start=0, state="Live", phase=""),),
        ),
    )  # fmt: skip
    replicas = (
        Replica(id=ReplicaId("aggregator", 0, 1), phase="Running", node="n0"),
        Replica(id=ReplicaId("worker", 0, 1), phase="Exited", exit_code=1),
        Replica(id=ReplicaId("worker", 0, 2), phase="Running", node="n1"),
        Replica(id=ReplicaId("worker", 1, 1), phase="Pending"),
    )
    made = status(memory, replicas=replicas)
    assert made["workers"] == {
        "desired": 2, "live": 1, "ready": "1/2", "running": 1, "pending": 1, "failed": 1, "succeeded": 0,
    }  # fmt: skip
    assert made["aggregator"] == {
        "epoch": 1, "pod": "digits-aggregator-1", "node": "n0", "ready": True, "crashes": 0, "losses": 0,
    }  # fmt: skip
    assert made["ranks"][0] == {
        "rank": 0, "attempt": 2, "pod": "digits-worker-0-2", "node": "n1", "phase": "Running",
        "crashes": 1, "crashesTotal": 5, "losses": 2, "evictions": 3, "restarts": 1,
    }  # fmt: skip
    assert made["replicas"] == 2
    assert made["selector"] == "backupsync.dev/job=digits,backupsync.dev/role=worker"


def test_live_workers_of_an_earlier_epoch_are_not_live():
    member = MemberStatus(rank=0, attempt=1, start=0, state="Live", phase="")
    answer = AggregatorStatus(job="d", uid="u", epoch=1, phase="Training", members=(member,))
    memory = JobStatus(
        phase="Running", aggregator_attempt=2, progress=answer, members=(MemberIntent(rank=0, attempt=1),)
    )
    assert status(memory)["workers"]["ready"] == "0/1"


@pytest.mark.parametrize(
    ("kinds", "phase", "message"),
    [
        (("Ready",), "Running", "about Ready"),
        (("Ready", "Failed"), "Failed", "about Failed"),
        (("Ready", "Succeeded"), "Succeeded", "about Succeeded"),
        (("Ready", "Suspended"), "Suspended", "about Suspended"),
    ],
)
def test_one_line_says_why_the_job_is_where_it_is(kinds, phase, message):
    conditions = tuple(Condition(type=k, status="True", reason="R", message=f"about\n{k}") for k in kinds)
    assert status(JobStatus(phase=phase, conditions=conditions))["message"] == message


def test_decisions_are_kept_in_order_once_each_and_bounded():
    old = None
    for number in range(30):
        made = decisions_of(old, (f"decision {number}", "the same as ever"), NOW + number)
        old = {"decisions": made}
    texts = [d["text"] for d in made]
    assert len(texts) == 20
    assert texts[-1] == "decision 29"
    assert texts.count("the same as ever") <= 1
    assert len(decisions_of(None, ("x" * 9000,), NOW)[0]["text"]) <= 4096


JSONS = st.recursive(
    st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text("abc", max_size=1), inner, max_size=3)
    ),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text("abc", max_size=1), JSONS, max_size=4)


@settings(max_examples=200, deadline=None)
@given(old=OBJECTS, new=OBJECTS)
def test_the_difference_makes_the_new_of_the_old(old: dict[str, Any], new: dict[str, Any]) -> None:
    patch = difference(old, new)
    assert (merged(old, patch) if patch is not None else old) == new
    assert (patch is None) == (json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True))


def test_equal_statuses_differ_in_nothing():
    made = big(3)
    assert difference(made, json.loads(json.dumps(made))) is None
    assert difference(None, {}) is None


def test_what_is_kept_of_an_answer_is_who_is_there():
    member = MemberStatus(
        rank=1, attempt=2, start=3, state="Live", phase="push", commits=4, last_outcome="accepted"
    )
    answer = AggregatorStatus(job="d", uid="u", epoch=1, phase="Training", members=(member,))
    assert bare(answer).members == (MemberStatus(rank=1, attempt=2, start=3, state="Live", phase=""),)
