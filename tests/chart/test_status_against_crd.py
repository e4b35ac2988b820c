"""What the operator writes into a status survives the API server: nothing pruned, nothing refused."""

import pytest
from msgspec import structs
from schemas import misfits

from backupsync.control import AggregatorStatus, MemberStatus
from backupsync.lifecycle.types import (
    Condition,
    JobStatus,
    MemberIntent,
    RankHistory,
    Replica,
    ReplicaId,
)
from backupsync.spec import parse_manifest
from backupsync_operator.cr_status import View, status_of
from backupsync_operator.render import Images

NOW = 1_800_000_000.0
N = 3
JOB = parse_manifest(f"""
apiVersion: backupsync.dev/v1alpha1
kind: BackupSyncJob
metadata: {{name: digits, namespace: default}}
spec:
  program: {{script: train.py}}
  aggregation: {{workers: {N}}}
  training: {{iterations: 400, batchSize: 8, optimizer: {{lr: 1}}}}
""")
MEMORY = JobStatus(
    phase="Running",
    conditions=tuple(
        Condition(type=kind, status="True", reason="Training", message="m", last_transition_time=NOW)
        for kind in ("Accepted", "Ready", "Suspended", "Succeeded", "Failed")
    ),
    members=tuple(MemberIntent(rank=rank, attempt=1) for rank in range(N)),
    ranks=tuple(RankHistory(rank=rank, attempts=1) for rank in range(N)),
    aggregator_attempt=1,
    start_time=NOW,
    completion_time=NOW,
    progress=AggregatorStatus(
        job="digits", uid="u", epoch=1, phase="Training", iteration=7, iterations_total=400, rate=8.9,
        loss=0.5, eta_seconds=44.0, examples=168, required=N,
        evaluation={"accuracy": 0.9}, metrics={"f1": 0.8},
        members=tuple(
            MemberStatus(rank=rank, attempt=1, start=0, state="Live", phase="compute") for rank in range(N)
        ),
    ),
)  # fmt: skip
REPLICAS = tuple(
    Replica(id=id_, phase="Running", node="node1")
    for id_ in (ReplicaId("aggregator", 0, 1), *(ReplicaId("worker", rank, 1) for rank in range(N)))
)


def written(memory, replicas=REPLICAS):
    images = Images(worker="w", aggregator="a")
    return status_of(memory, View(JOB, 4, replicas, images, "0.1.0", ("why",), True), None, NOW)


@pytest.mark.parametrize(
    "memory", [MEMORY, JobStatus(), structs.replace(MEMORY, phase="Succeeded")], ids=["full", "new", "ended"]
)
def test_a_status_fits_its_schema(schema, memory):
    assert list(misfits(schema["properties"]["status"], written(memory))) == []


def test_the_schema_has_no_field_that_nobody_writes(schema):
    """But for slow ranks, which nobody judges yet, and the checkpoint of a job that has none."""
    shown, told = written(MEMORY), schema["properties"]["status"]["properties"]
    assert told.keys() == shown.keys()
    for group in ("workers", "aggregator", "progress", "images"):
        assert told[group]["properties"].keys() - shown[group].keys() <= {"checkpointIteration"}
    assert told["ranks"]["items"]["properties"].keys() - shown["ranks"][0].keys() == {"slow"}
