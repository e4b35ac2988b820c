"""`backupsync run` from the manifest to the model."""

import json

from safetensors.torch import load_file

from backupsync.trace import Header, Iteration


def test_a_job_runs_to_its_end_and_leaves_model_report_trace_and_no_process(job):
    job.write(program={"args": {"step_seconds": 0.01}}, aggregation={"workers": 2, "backupWorkers": 1})
    job.start("--report", "r.json", "--trace", "t.jsonl").wait_for_iteration(1)
    assert len(job.processes()) >= 5  # forkserver, aggregator, three workers
    assert job.finish() == 0, job.explain()
    job.wait_until_nothing_is_left()
    assert job.status.phase == "Succeeded"
    lines = job.trace
    assert isinstance(lines[0], Header)
    assert [line.iteration for line in lines if isinstance(line, Iteration)] == list(range(20))
    report = json.loads((job.directory / "r.json").read_text())
    assert report["iterations"] == 20
    assert "mse" in report["final"]
    assert (job.directory / "t.jsonl").read_bytes() == job.home.trace_file.read_bytes()
    assert set(load_file(job.home.checkpoints / "model.safetensors")) == {"weight", "bias"}


def test_a_finished_job_is_run_anew_only_when_asked(job):
    job.write(training={"iterations": 2}, checkpoint={"path": "out"})
    assert job.run() == 0, job.explain()
    uid = job.home.read_facts().uid
    assert job.run() == 2
    assert "has succeeded already; run it anew with --replace" in job.output
    assert job.call("delete", "tiny", "--local").returncode == 0
    assert job.run() == 2
    assert "holds the checkpoints of an earlier run of this job" in job.output
    assert job.run("--replace") == 0, job.explain()
    assert job.home.read_facts().uid != uid
    assert job.traced_iterations() == 2


def test_the_same_job_does_not_run_twice_at_once(job):
    job.write(training={"iterations": 100_000}).start()
    job.wait_for_iteration(1)
    assert job.engine is not None
    second = job.call("run", str(job.manifest))
    assert second.returncode == 2
    assert f"job tiny: is already running (pid {job.engine.pid})" in second.stderr


def test_a_job_over_tcp_takes_the_port_it_is_given_or_says_that_it_is_taken(job, free_port):
    port, hold = free_port
    job.write(
        aggregation={"workers": 1, "wire": {"transport": "Tcp", "port": port}}, training={"iterations": 2}
    )
    with hold():
        assert job.run() == 2
    assert f"spec.aggregation.wire.port = {port}" in job.output
    assert not job.home.facts_file.exists()
    assert job.run() == 0, job.explain()
