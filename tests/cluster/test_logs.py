"""Logs: whose are read, and how they are followed across pods that come and go."""

import threading

import pytest
from cluster_objects import JOB, job_object, pod_object, pod_path

from backupsync.cluster import Invalid, NotFound
from backupsync.cluster import logs as logs_module
from backupsync.cluster.logs import Selection, chosen, fresh
from backupsync.lifecycle.types import ReplicaId

T = "2026-01-02T03:04:0{}.{:09d}Z"


def moment(second, nano=0):
    return T.format(second, nano)


def pods(*triples):
    return [(ReplicaId(*triple), {"metadata": {}}) for triple in sorted(triples)]


THREE = pods(("aggregator", 0, 1), ("worker", 0, 1), ("worker", 0, 3), ("worker", 1, 1))


def ids(items):
    return [(r.role, r.rank, r.attempt) for r, _ in items]


def test_the_newest_attempt_of_each_rank_is_read():
    assert ids(chosen(THREE, Selection())) == [("aggregator", 0, 1), ("worker", 0, 3), ("worker", 1, 1)]
    assert ids(chosen(THREE, Selection(role="worker", rank=0))) == [("worker", 0, 3)]
    assert ids(chosen(THREE, Selection(role="aggregator"))) == [("aggregator", 0, 1)]


def test_another_attempt_is_read_where_asked_for():
    assert ids(chosen(THREE, Selection(role="worker", rank=0, previous=True))) == [("worker", 0, 1)]
    assert ids(chosen(THREE, Selection(role="worker", rank=1, previous=True))) == []
    assert ids(chosen(THREE, Selection(role="worker", attempt=1))) == [("worker", 0, 1), ("worker", 1, 1)]


def test_a_follower_begins_with_the_newest_and_takes_up_each_later_one():
    worker = Selection(role="worker")
    assert ids(fresh(THREE, worker, {})) == [("worker", 0, 3), ("worker", 1, 1)]
    read = {("worker", 0): 3, ("worker", 1): 1}
    assert fresh(THREE, worker, read) == []
    later = pods(("worker", 0, 3), ("worker", 0, 4), ("worker", 0, 5), ("worker", 2, 1))
    assert ids(fresh(later, worker, read)) == [("worker", 2, 1), ("worker", 0, 4), ("worker", 0, 5)]
    assert fresh(later, Selection(role="worker", rank=0, attempt=3), read) == []


def texts(lines):
    return [line.text for line in lines]


def test_logs_of_everyone_are_merged_by_time(client, fake):
    fake.put(JOB, job_object("Running"))
    for rank in (0, 1):
        fake.put(pod_path(rank=rank), pod_object(rank=rank))
    fake.write(pod_path(rank=0), moment(1), "a")
    fake.write(pod_path(rank=0), moment(3), "c c")
    fake.write(pod_path(rank=1), moment(2), "b")
    lines = list(client.logs("digits"))
    assert texts(lines) == ["a", "b", "c c"]
    assert (lines[1].pod, lines[1].rank, lines[1].attempt) == ("digits-worker-1-1", 1, 1)
    query = fake.asked("GET", "/log")[0].query
    assert query == {"container": "worker", "timestamps": "true"}


def test_a_log_that_is_not_there_yet_says_what_is(client, fake):
    fake.put(JOB, job_object("Running"))
    fake.put(pod_path(rank=0), pod_object(rank=0))
    fake.put(pod_path(rank=1), pod_object(rank=1, state="waiting"))
    with pytest.raises(NotFound) as raised:
        list(client.logs("digits", rank=1))
    assert "digits-worker-1-1 is Pending; pods with a log: digits-worker-0-1; --follow waits" in str(
        raised.value
    )
    with pytest.raises(NotFound, match="no log of worker 7: there is no such pod"):
        list(client.logs("digits", rank=7))
    with pytest.raises(NotFound, match="the attempt before the newest of worker 0"):
        list(client.logs("digits", rank=0, previous=True))


class Following(threading.Thread):
    """Follows in a thread of its own."""

    def __init__(self, client, **options):
        super().__init__(daemon=True)
        self.lines, self.error = [], None
        self._client, self._options = client, options
        self.start()

    def run(self):
        try:
            for line in self._client.logs("digits", follow=True, **self._options):
                self.lines.append(line.text)
        except Exception as error:
            self.error = error

    def until(self, *texts):
        while self.lines != list(texts):
            assert self.is_alive(), (self.lines, self.error)
            assert len(self.lines) <= len(texts), self.lines

    def end(self):
        self.join(60)
        assert not self.is_alive()
        if self.error:
            raise self.error
        return self.lines


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(logs_module, "_LOOK_SECONDS", 0.05)


def test_following_begins_before_the_pod_and_goes_on_to_its_successor(client, fake):
    fake.put(JOB, job_object("Pending"))
    with fake.waiting_for("GET", "/pods"):
        following = Following(client, rank=0)
    fake.put(pod_path(), pod_object(state="waiting"))
    with fake.waiting_for("GET", "/pods"):
        pass
    fake.put(pod_path(), pod_object(state="running"))
    fake.write(pod_path(), moment(1), "first")
    following.until("first")
    fake.end_log(pod_path())
    fake.put(pod_path(), pod_object(state="terminated"))
    fake.put(pod_path(attempt=2), pod_object(attempt=2, state="running"))
    fake.write(pod_path(attempt=2), moment(2), "second")
    following.until("first", "second")
    fake.end_log(pod_path(attempt=2))
    fake.put(pod_path(attempt=2), pod_object(attempt=2, state="terminated"))
    fake.put(JOB, job_object("Succeeded"))
    assert following.end() == ["first", "second"]


def test_a_cut_connection_neither_loses_nor_repeats_a_line(client, fake):
    fake.put(JOB, job_object("Running"))
    fake.put(pod_path(), pod_object())
    fake.write(pod_path(), moment(1, 1), "a")
    fake.write(pod_path(), moment(1, 2), "b")
    following = Following(client, rank=0)
    following.until("a", "b")
    with fake.waiting_for("GET", "/log"):
        fake.cut()
    fake.write(pod_path(), moment(1, 3), "c")
    following.until("a", "b", "c")
    fake.end_log(pod_path())
    fake.put(pod_path(), pod_object(state="terminated"))
    fake.put(JOB, job_object("Failed"))
    assert following.end() == ["a", "b", "c"]
    assert fake.asked("GET", "/log")[-1].query["sinceTime"] >= moment(1, 2)


def test_following_ends_with_the_job_whatever_became_of_its_pods(client, fake):
    fake.put(JOB, job_object("Running"))
    fake.put(pod_path(), pod_object(state="waiting"))
    following = Following(client)
    with fake.waiting_for("GET", "/pods"):
        pass
    fake.remove(pod_path())
    fake.remove(JOB)
    assert following.end() == []


def test_one_attempt_that_is_asked_for_ends_the_following(client, fake):
    fake.put(JOB, job_object("Running"))
    fake.put(pod_path(), pod_object(state="terminated"))
    fake.write(pod_path(), moment(1), "last words")
    fake.end_log(pod_path())
    assert Following(client, rank=0, attempt=1).end() == ["last words"]


def test_more_pods_than_connections_are_refused(client, fake, monkeypatch):
    monkeypatch.setattr(logs_module, "MAX_FOLLOWED", 1)
    fake.put(JOB, job_object("Running"))
    for rank in (0, 1):
        fake.put(pod_path(rank=rank), pod_object(rank=rank))
        fake.write(pod_path(rank=rank), moment(1), "x")
    with pytest.raises(Invalid, match="more than 1 pods to read at once; name one by --rank R"):
        list(client.logs("digits"))
    with pytest.raises(Invalid, match="more than 1 pods"):
        Following(client).end()
