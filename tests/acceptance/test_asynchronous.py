"""The asynchronous mode with a worker so slow that its gradients are too stale."""

from pathlib import Path

from engine_job import EngineJob

from backupsync.trace import Gradient

PROFILE = """
seed: 1
stepSeconds: 0.02
rules:
  - {kind: Persistent, factor: 8, ranks: [1]}
"""


def test_what_is_older_than_the_limit_is_dropped_and_everything_else_applied_at_once(jobs) -> None:
    job: EngineJob = jobs("async").write(
        program={"entrypoint": "faulty:Sound"},
        aggregation={"mode": "Async", "workers": 3, "maxStaleness": 3},
        training={"iterations": 100},
    )
    profile: Path = job.directory / "profile.yaml"
    profile.write_text(PROFILE)
    assert job.run(profile) == 0, job.explain()
    accepted = [g for g in job.lines(Gradient) if g.outcome == "accepted"]
    assert len(accepted) == 100
    assert [g.applied_at for g in accepted] == list(range(100))
    staleness = [g.applied_at - g.iteration for g in accepted]
    assert max(staleness) <= 3
    stale = [g for g in job.lines(Gradient) if g.reason in ("stale", "abandoned")]
    assert {g.rank for g in stale} >= {1}
    assert {u.accepted for u in job.updates()} == {1}
    assert job.report["staleness"]["max"] == max(staleness)
