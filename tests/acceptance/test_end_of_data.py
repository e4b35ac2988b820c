"""Data that comes to its end, on some workers before the others."""

from backupsync.trace import Ended, Gradient, Header

STREAMS = {0: 4, 1: 9, 2: 9}


def test_streams_of_unequal_length_are_read_to_their_ends_and_the_last_updates_say_that_they_took_fewer(
    jobs,
) -> None:
    job = jobs("streams").write(
        program={"entrypoint": None, "script": "stream.py", "args": {"lengths": list(STREAMS.values())}},
        aggregation={"mode": "Sync", "workers": 3},
        training={"iterations": 1000, "batchSize": 4},
    )
    assert job.run() == 0, job.explain()
    updates = job.updates()
    ended = job.lines(Ended)[-1]
    assert (ended.outcome, ended.iteration) == ("Succeeded", len(updates))
    assert len(updates) < 1000
    assert {(u.accepted, u.note) for u in updates} >= {(3, None), (2, "EndOfData")}
    assert all((u.accepted < u.required) == (u.note == "EndOfData") for u in updates)
    read = dict.fromkeys(STREAMS, 0)
    for gradient in job.lines(Gradient):
        read[gradient.rank] += gradient.outcome == "accepted"
    assert read == STREAMS


def test_epochs_with_requeue_apply_every_mini_batch_exactly_once(jobs) -> None:
    job = jobs("requeue").write(
        program={"entrypoint": "faulty:Uneven"},
        aggregation={"workers": 2, "backupWorkers": 1, "droppedBatches": "Requeue", "maxRequeues": 100},
        training={"iterations": None, "epochs": 3, "batchSize": 5},
    )
    assert job.run() == 0, job.explain()
    per_epoch = job.lines(Header)[0].batches_per_epoch
    assert per_epoch == 13
    accepted = [g.ticket for g in job.lines(Gradient) if g.outcome == "accepted"]
    assert sorted(accepted) == list(range(3 * per_epoch))
    assert any(g.outcome == "dropped" for g in job.lines(Gradient))
    assert job.report["coverage"] == 1.0
    assert job.report["passes"] == 3.0
    assert job.report["examples"] == 3 * 64
