"""Waiting for a job: what counts as arrived, and what the wait outlasts."""

import threading
import time

import pytest
from cluster_objects import JOB, JOBS, job_object

from backupsync.cluster import Ended, NotFound, TimedOut
from backupsync.cluster.types import job_of
from backupsync.cluster.waiting import verdict

FAILED = [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "rank 1"}]
ACCEPTED = [{"type": "Accepted", "status": "True", "reason": "Accepted"}]


@pytest.mark.parametrize(
    ("until", "state", "reached"),
    [
        ("accepted", "Pending", False),
        ("accepted", "Running", True),
        ("running", "Pending", False),
        ("running", "Running", True),
        ("running", "Succeeded", True),
        ("running", "Suspended", False),
        ("suspended", "Suspended", True),
        ("succeeded", "Running", False),
        ("succeeded", "Succeeded", True),
        ("failed", "Failed", True),
        ("failed", "Running", False),
        ("finished", "Failed", True),
        ("finished", "Succeeded", True),
        ("deleted", "Succeeded", False),
    ],
)
def test_what_counts_as_arrived(until, state, reached):
    assert verdict(until, job_of(job_object(state)), gone=False) is reached


def test_acceptance_is_a_condition():
    assert verdict("accepted", job_of(job_object("Pending", conditions=ACCEPTED)), gone=False)


def test_a_job_that_is_refused_is_not_waited_for_until_it_is_edited():
    refused = [
        {"type": "Accepted", "status": "False", "reason": "TemplateRefused", "message": "no such field"}
    ]
    for until in ("accepted", "running", "succeeded"):
        with pytest.raises(Ended, match="before somebody edits it: TemplateRefused: no such field"):
            verdict(until, job_of(job_object("Pending", conditions=refused)), gone=False)
    edited = job_object("Pending", conditions=refused, observedGeneration=1)
    assert not verdict("running", job_of(edited), gone=False), "it may be judged anew"
    assert not verdict("succeeded", job_of(job_object("Running", conditions=refused)), gone=False)


@pytest.mark.parametrize(
    ("until", "state"),
    [("succeeded", "Failed"), ("running", "Failed"), ("failed", "Succeeded"), ("suspended", "Succeeded")],
)
def test_what_can_no_longer_happen_is_said_with_the_reason(until, state):
    conditions = FAILED if state == "Failed" else []
    with pytest.raises(Ended) as raised:
        verdict(until, job_of(job_object(state, conditions=conditions)), gone=False)
    assert f"job digits: {state}, so it will not be {until}" in str(raised.value)
    assert ("BackoffLimitExceeded: rank 1" in str(raised.value)) == (state == "Failed")


def test_a_job_that_is_deleted_will_not_succeed():
    with pytest.raises(Ended, match="job digits: was deleted"):
        verdict("succeeded", job_of(job_object("Running")), gone=True)
    assert verdict("deleted", job_of(job_object("Running")), gone=True)


class Waiting(threading.Thread):
    """A wait in a thread of its own."""

    def __init__(self, client, until="succeeded"):
        super().__init__(daemon=True)
        self.client, self.until, self.result, self.seen = client, until, None, []
        self.start()

    def run(self):
        try:
            self.result = self.client.wait(
                "digits", self.until, timeout=60, on_change=lambda job: self.seen.append(job.state)
            )
        except Exception as error:
            self.result = error

    def end(self):
        self.join(60)
        return self.result


def test_a_wait_sees_each_change_by_a_watch_and_ends_with_it(client, fake):
    fake.put(JOB, job_object("Pending"))
    with fake.waiting_for("GET", JOBS + "/"):
        pass_through = Waiting(client)
    while not any(r.query.get("watch") for r in fake.requests):
        assert pass_through.is_alive()
    fake.put(JOB, job_object("Running"))
    fake.put(JOB, job_object("Succeeded"))
    assert pass_through.end().state == "Succeeded"
    assert pass_through.seen == ["Pending", "Running", "Succeeded"]
    assert len(fake.asked("GET", JOB)) == 1, "one read, the rest told by the watch"
    [watch] = [r for r in fake.requests if r.query.get("watch")]
    assert watch.query["fieldSelector"] == "metadata.name=digits"


def test_a_wait_outlasts_a_watch_that_is_cut(client, fake):
    fake.put(JOB, job_object("Running"))
    waiting = Waiting(client)
    while sum("watch" in r.query for r in fake.requests) < 3:
        assert waiting.is_alive()
        fake.cut()  # whichever is open by now
        time.sleep(0.01)
    fake.put(JOB, job_object("Succeeded"))
    assert waiting.end().state == "Succeeded"


def test_a_wait_outlasts_an_api_server_that_answers_503(client, fake):
    fake.put(JOB, job_object("Succeeded"))
    fake.refusals.append(("GET", JOB, 503, {"message": "starting", "reason": "ServiceUnavailable"}))
    assert client.wait("digits", timeout=30).state == "Succeeded"


def test_a_wait_for_deletion_ends_with_it(client, fake):
    fake.put(JOB, job_object("Running"))
    waiting = Waiting(client, "deleted")
    while not any(r.query.get("watch") for r in fake.requests):
        assert waiting.is_alive()
    fake.remove(JOB)
    assert waiting.end().state == "Running", "as it was last seen"
    assert client.wait("digits", "deleted", timeout=0).name == "digits"


def test_a_job_that_was_never_there_is_not_waited_for(client):
    with pytest.raises(NotFound):
        client.wait("digits", timeout=0)


def test_a_wait_that_is_too_long_says_how_the_job_stands(client, fake):
    fake.put(JOB, job_object("Running"))
    with pytest.raises(TimedOut, match=r"not succeeded within 0 s; it is Running"):
        client.wait("digits", timeout=0)
