"""The figures of bench/cluster are counted rightly: writes from the audit log, quantiles from a histogram."""

import importlib.util
import json
import math
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2] / "bench" / "cluster"


def module(name):
    spec = importlib.util.spec_from_file_location(f"bench_cluster_{name}", HERE / f"{name}.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


audit, pages = module("audit"), module("pages")


def entry(verb, resource, name="j", at=0, status=None, **changes):
    reference = {"resource": resource.partition("/")[0], "namespace": "n", "name": name}
    if "/" in resource:
        reference["subresource"] = resource.partition("/")[2]
    return {
        "stage": "ResponseComplete",
        "verb": verb,
        "requestReceivedTimestamp": f"2026-01-01T00:00:{at:02d}.250000Z",
        "objectRef": reference,
        "responseStatus": {"code": 200},
        **({"requestObject": {"status": status}} if status is not None else {}),
        **changes,
    }


def condition(kind, value, reason, message=""):
    return {"type": kind, "status": value, "reason": reason, "message": message}


PENDING = {"state": "Pending", "conditions": [condition("Ready", "False", "AggregatorNotReady", "1 pod")]}
WORDS = {"conditions": [condition("Ready", "False", "AggregatorNotReady", "2 pods")]}
FIGURES = {"progress": {"iteration": 9}, "memory": {"progress": {"iteration": 9}}}
RUNNING = {"state": "Running", "conditions": [condition("Ready", "True", "Training")]}
PATCH = "backupsyncjobs/status"


@pytest.fixture
def log(tmp_path):
    entries = [
        entry("patch", PATCH, status=PENDING),
        entry("update", "leases", "operator"),
        entry("create", "pods", "j-worker-0-1", 1, responseStatus={"code": 201}),
        entry("create", "pods", "j-worker-0-1", 1, responseStatus={"code": 409}),
        entry("patch", PATCH, at=2, status=WORDS),
        entry("patch", PATCH, at=3, status=RUNNING),
        entry("create", "events", "j.1", 3),
        entry("patch", PATCH, at=13, status=FIGURES),
    ]
    file = tmp_path / "audit.log"
    lines = [json.dumps(e) for e in entries]
    (tmp_path / "audit-2026-01-01T00-00-01.000.log").write_text("\n".join(lines[:3]) + "\n")
    file.write_text("\n".join(lines[3:]) + '\n{"stage": "Resp')
    return file


def test_every_write_is_read_but_those_of_the_lease_and_half_a_line(log):
    writes = list(audit.read(log))
    assert [w.at % 60 for w in writes] == [0.25, 1.25, 1.25, 2.25, 3.25, 3.25, 13.25]
    assert audit.counted(writes) == {
        "create events": 1,
        "create pods": 1,
        "create pods (409)": 1,
        "patch backupsyncjobs/status": 4,
    }


def test_up_to_running_nothing_is_left_out_and_nothing_later_counted(log):
    writes = audit.until_running(audit.read(log), "j")
    assert [w.what for w in writes] == [
        "patch backupsyncjobs/status",
        "create pods",
        "create pods (409)",
        "patch backupsyncjobs/status",
        "patch backupsyncjobs/status",
    ]
    assert audit.until_running(audit.read(log), "another") == []


def test_a_transition_changes_a_state_a_status_or_a_reason(log):
    assert audit.transitions(audit.read(log)) == 2
    assert audit.transitions([]) == 0


def test_only_figures_are_progress(log):
    assert [w.progress_only for w in audit.read(log)] == [False] * 6 + [True]
    members = {"memory": {"members": []}, "progress": {}}
    (write,) = audit.write_of(entry("patch", PATCH, status=members))
    assert not write.progress_only
    (pod,) = audit.write_of(entry("create", "pods"))
    assert not pod.progress_only


PAGE = """# TYPE backupsync_operator_reconcile_seconds histogram
backupsync_operator_reconcile_seconds_bucket{le="0.1",outcome="ok"} %d
backupsync_operator_reconcile_seconds_bucket{le="1.0",outcome="ok"} %d
backupsync_operator_reconcile_seconds_bucket{le="+Inf",outcome="ok"} %d
backupsync_operator_reconcile_seconds_bucket{le="0.1",outcome="error"} 0.0
backupsync_operator_reconcile_seconds_bucket{le="1.0",outcome="error"} 0.0
backupsync_operator_reconcile_seconds_bucket{le="+Inf",outcome="error"} 0.0
backupsync_operator_jobs{state="Running"} 7.0
"""


def test_a_quantile_is_of_what_happened_between_two_readings():
    before, after = pages.buckets(PAGE % (10, 10, 10)), pages.buckets(PAGE % (60, 110, 110))
    assert before == {0.1: 10, 1.0: 10, math.inf: 10}
    assert pages.quantile(before, after, 0.5) == pytest.approx(0.1)
    assert pages.quantile(before, after, 0.75) == pytest.approx(0.55)
    assert pages.quantile(before, pages.buckets(PAGE % (10, 10, 20)), 0.99) == 1.0
    assert math.isnan(pages.quantile(before, before, 0.5))


def test_a_sample_is_read_by_its_name():
    assert pages.sample(PAGE % (1, 2, 3), 'backupsync_operator_jobs{state="Running"}') == 7.0
    assert pages.sample(PAGE % (1, 2, 3), "backupsync_operator_nothing") == 0.0
