"""With b = 0 a program that hangs would hold up every iteration for ever, and its heartbeats go on."""

from backupsync.trace import Membership


def test_a_hanging_worker_is_lost_replaced_and_the_job_ends(jobs):
    job = jobs("hanging").write(
        program={"entrypoint": "faulty:HangsOnce"},
        aggregation={
            "mode": "Sync",
            "workers": 2,
            "wire": {"heartbeatSeconds": 0.2, "timeoutSeconds": 1, "stallSeconds": 2},
        },
        training={"iterations": 20},
    )
    assert job.run() == 0, job.explain()
    hung = [line for line in job.lines(Membership) if line.detail.startswith("hangs")]
    assert [(line.rank, line.attempt) for line in hung] == [(0, 1)]
    assert hung[0].detail == "hangs in phase compute: no progress for 2 s"
    assert [update.accepted for update in job.updates()] == [2] * 20
    assert job.accepted(0, 1)
    assert job.accepted(0, 2)
