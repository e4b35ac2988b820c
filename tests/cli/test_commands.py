"""Every command as a user types it: what it answers, and what it says of a mistake."""

import inspect
import json
import os
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from backupsync.cli.app import app
from backupsync.control import AggregatorStatus
from backupsync.lifecycle.types import Condition, JobStatus
from backupsync.local.events import append_event, event
from backupsync.local.home import JobDirectory, RunFacts
from backupsync.spec import parse_manifest

MANIFEST = """
apiVersion: backupsync.dev/v1alpha1
kind: BackupSyncJob
metadata: {name: digits}
spec:
  program: {entrypoint: "digits:Digits"}
  aggregation: {workers: 4, backupWorkers: 2}
  training: {iterations: 400, batchSize: 32, optimizer: {name: SGD, lr: 0.1}}
"""
HELP = Path(__file__).parent / "help.txt"
COMMANDS = (
    [],
    *([name] for name in ("run", "validate", "plot", "list", "status", "events", "explain", "logs")),
    *([name] for name in ("metrics", "scale", "suspend", "resume", "delete", "submit", "wait", "get-model")),
)


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.setenv("BACKUPSYNC_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


@pytest.fixture
def home(tmp_path):
    directory = JobDirectory(tmp_path / "state", "digits")
    directory.create()
    directory.write_job(parse_manifest(MANIFEST))
    checkpoints = tmp_path / "checkpoints"
    facts = RunFacts(
        uid="u-1", manifest_source="d.yaml", program_directory=".", checkpoint_directory=str(checkpoints)
    )
    directory.write_facts(facts)
    progress = AggregatorStatus(job="digits", uid="u-1", epoch=1, phase="Training", iteration=212)
    failed = Condition(type="Failed", status="False", reason="Running")
    directory.write_status(JobStatus(phase="Running", progress=progress, conditions=(failed,)))
    return directory


def manifest(tmp_path, text=MANIFEST):
    path = tmp_path / "job.yaml"
    path.write_text(text)
    return str(path)


def page(name: str, command) -> str:
    """Return what a command offers, in words of ours alone: how typer draws them differs between versions."""
    lines = [f"backupsync {name}".strip(), f"  {inspect.cleandoc(command.help)}".replace("\n", "\n  ")]
    for parameter in command.params:
        usual = parameter.default if isinstance(parameter.default, str) else None
        words = [
            ", ".join([*parameter.opts, *parameter.secondary_opts]),
            parameter.metavar or "",
            "(required)" if parameter.required else "",
            f"(default: {usual})" if usual else "",
        ]
        lines.append("    " + " ".join(filter(None, words)) + f": {parameter.help}")
    return "\n".join(lines) + "\n"


def test_the_help_is_the_frozen_one():
    group = typer.main.get_command(app)
    pages = [page("", group), *(page(name, command) for name, command in group.commands.items())]
    text = "\n".join(pages)
    if os.environ.get("UPDATE_HELP"):
        HELP.write_text(text)
    assert text == HELP.read_text(), "the help changed: regenerate with UPDATE_HELP=1 and look at the diff"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(["backupsync", *command]))
def test_the_help_names_every_option(command):
    environment = {"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "TERM": "dumb"}
    answer = CliRunner(env=environment).invoke(app, [*command, "--help"])
    assert answer.exit_code == 0
    group = typer.main.get_command(app)
    offered = group.commands[command[0]] if command else group
    options = [name for parameter in offered.params for name in parameter.opts if name.startswith("-")]
    assert [name for name in options if name not in answer.stdout] == []


def test_a_valid_manifest_is_summed_up(call, tmp_path):
    answer = call("validate", manifest(tmp_path))
    assert answer.exit_code == 0
    assert "valid: job digits, mode BackupSync, N = 4, b = 2, batch size 32, 400 iterations" in answer.stdout


def test_every_problem_of_a_manifest_is_said_at_once(call, tmp_path):
    text = MANIFEST.replace("workers: 4", "workers: 0").replace("batchSize", "batchsize")
    answer = call("validate", manifest(tmp_path, text))
    assert answer.exit_code == 2
    assert "spec.aggregation.workers = 0" in answer.stderr
    assert "did you mean batchSize?" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_what_only_torch_knows_is_checked_too(call, tmp_path):
    answer = call("validate", manifest(tmp_path, MANIFEST.replace("SGD", "SDG")))
    assert answer.exit_code == 2
    assert "spec.training.optimizer.name = 'SDG'" in answer.stderr


def test_a_script_that_is_not_there_is_named(call, tmp_path):
    text = MANIFEST.replace('entrypoint: "digits:Digits"', "script: train.py")
    answer = call("validate", manifest(tmp_path, text))
    assert answer.exit_code == 2
    assert "spec.program.script = 'train.py': no such file" in answer.stderr


@pytest.mark.parametrize("command", ["status", "events", "explain", "logs", "suspend", "delete", "metrics"])
def test_where_a_job_runs_is_never_guessed(call, home, command):
    answer = call(command, "digits")
    assert answer.exit_code == 2
    assert "say where the job runs: --local" in answer.stderr
    for said in (["--context", "prod"], ["--cluster"], ["-n", "team"], ["--kubeconfig", "k.yaml"]):
        answer = call(command, "digits", "--local", *said)
        assert answer.exit_code == 2
        assert "--local and " in answer.stderr
        assert "exclude each other" in answer.stderr


def test_where_jobs_run_can_be_said_once_for_all(call, home, monkeypatch):
    monkeypatch.setenv("BACKUPSYNC_TARGET", "local")
    assert "iteration 212" in call("status", "digits").stdout
    monkeypatch.setenv("BACKUPSYNC_TARGET", "cloud")
    answer = call("status", "digits")
    assert answer.exit_code == 2
    assert "$BACKUPSYNC_TARGET = 'cloud': must be local or cluster" in answer.stderr


def test_options_win_over_the_environment(call, home, monkeypatch):
    monkeypatch.setenv("BACKUPSYNC_TARGET", "cluster")
    assert "iteration 212" in call("status", "digits", "--local").stdout


def test_running_here_says_how_to_run_on_a_cluster(call, tmp_path):
    answer = call("run", manifest(tmp_path), "--context", "prod")
    assert answer.exit_code == 2
    assert "backupsync submit" in answer.stderr


def test_a_job_that_never_ran_here_is_no_traceback(call):
    answer = call("status", "nope", "--local")
    assert answer.exit_code == 2
    assert "job nope: is not in" in answer.stderr


def test_the_status_is_a_picture_or_json(call, home):
    assert "iteration 212" in call("status", "digits", "--local").stdout
    document = json.loads(call("status", "digits", "--local", "-o", "json").stdout)
    assert document["job"] == "digits"
    assert document["uid"] == "u-1"
    assert document["pid"] is None
    assert document["progress"]["iteration"] == 212
    assert document["state"] == "Running"


def test_jobs_are_listed(call, home):
    answer = call("list", "--local")
    assert answer.stdout.splitlines()[1].split() == ["digits", "Running", "212", "no"]
    told = json.loads(call("list", "--local", "-o", "json").stdout)
    assert told == [{"name": "digits", "state": "Running", "iteration": 212, "pid": None}]


def test_events_come_in_order_with_their_detail(call, home):
    append_event(home.events_file, event("Normal", "Running", "training has begun"))
    append_event(home.events_file, event("Warning", "Exited", "worker 0 ended", "Traceback\nValueError: x"))
    lines = call("events", "digits", "--local").stdout.splitlines()
    assert lines[0].endswith("Running: training has begun")
    assert lines[1].endswith("warning: Exited: worker 0 ended")
    assert lines[3] == "    ValueError: x"
    told = json.loads(call("events", "digits", "--local", "-o", "json").stdout)
    assert [event["reason"] for event in told] == ["Running", "Exited"]
    assert told[1]["detail"] == "Traceback\nValueError: x"
    assert told[1]["time"].endswith("Z")


def test_explain_gives_conditions_and_the_planners_reasons(call, home):
    home.write_explanation(("worker 0 (attempt 2) waits 3 s (backoff)",))
    answer = call("explain", "digits", "--local").stdout
    assert "condition Failed=False (Running)" in answer
    assert "planner: worker 0 (attempt 2) waits 3 s (backoff)" in answer
    told = json.loads(call("explain", "digits", "--local", "-o", "json").stdout)
    assert told["job"] == "digits"
    assert told["reasons"] == answer.splitlines()


def test_logs_are_those_of_the_newest_attempt_of_a_rank(call, home):
    home.worker_log(0, 1, 0).write_text("old\n")
    os.utime(home.worker_log(0, 1, 0), (0, 0))
    home.worker_log(0, 2, 0).write_text("new\n")
    assert call("logs", "digits", "--rank", "0", "--local").stdout == "new\n"
    answer = call("logs", "digits", "--rank", "7", "--local")
    assert answer.exit_code == 2
    assert "ranks with one: [0]" in answer.stderr
    assert call("logs", "digits", "--rank", "0", "--attempt", "1", "--local").stdout == "old\n"
    assert call("logs", "digits", "--rank", "0", "--previous", "--local").stdout == "old\n"
    answer = call("logs", "digits", "--rank", "0", "--attempt", "3", "--local")
    assert "worker 0 (attempt 3) has written no log" in answer.stderr


def test_logs_of_everyone_say_whose_each_line_is(call, home):
    home.aggregator_log(1).write_text("started\n")
    home.worker_log(0, 2, 0).write_text("one\ntwo")
    answer = call("logs", "digits", "--all", "--local")
    lines = ["aggregator-1 | started", "worker-0-2-0 | one", "worker-0-2-0 | two"]
    assert answer.stdout.splitlines() == lines


@pytest.mark.parametrize(
    "options", [["--rank", "0", "--all"], ["--aggregator", "--rank", "1"], ["--attempt", "1", "--previous"]]
)
def test_logs_options_that_exclude_each_other_are_refused(call, home, options):
    answer = call("logs", "digits", "--local", *options)
    assert answer.exit_code == 2
    assert "exclude each other" in answer.stderr


def test_scaling_writes_the_spec_of_a_running_job(call, home):
    with home.lock.held("digits"):
        answer = call("scale", "digits", "--workers", "5", "--backup-workers", "1", "--local")
    assert answer.stdout == "job digits: N = 5, b = 1\n"
    aggregation = home.read_job().spec.aggregation
    assert (aggregation.workers, aggregation.backup_workers) == (5, 1)


def test_a_scale_that_cannot_be_names_field_value_and_remedy(call, home):
    with home.lock.held("digits"):
        answer = call("scale", "digits", "--workers", "0", "--local")
    assert answer.exit_code == 2
    assert "spec.aggregation: workers = 0: must be greater than or equal to 1" in answer.stderr
    assert home.read_job().spec.aggregation.workers == 4
    assert "say what to change" in call("scale", "digits", "--local").stderr


def test_a_job_that_does_not_run_is_changed_in_its_manifest(call, home):
    answer = call("suspend", "digits", "--local")
    assert answer.exit_code == 2
    assert "job digits: is not running" in answer.stderr


def test_a_stopped_job_whose_relative_checkpoints_are_elsewhere_is_told_both_ways_on(call, home, tmp_path):
    relative = MANIFEST.rstrip() + "\n  checkpoint: {path: out/digits}\n"
    answer = call("run", manifest(tmp_path, relative))
    assert answer.exit_code == 2
    assert f"checkpoints in {tmp_path / 'checkpoints'}; set that path to go on" in answer.stderr
    assert "or run from the directory of before, where the relative path begins" in answer.stderr
    absolute = relative.replace("out/digits", str(tmp_path / "out"))
    assert "run from the directory of before" not in call("run", manifest(tmp_path, absolute)).stderr


def test_deleting_keeps_the_checkpoints_unless_told(call, home, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with home.lock.held("digits"):
        assert "is running" in call("delete", "digits", "--local").stderr
    answer = call("delete", "digits", "--local")
    assert answer.exit_code == 0, answer.stderr
    assert not home.path.exists()
    assert (tmp_path / "checkpoints").exists()


def test_metrics_of_a_job_that_does_not_run_are_served_by_nobody(call, home):
    assert "is not running" in call("metrics", "digits", "--local").stderr
    home.http_file(0).write_text('{"port": 4711, "epoch": 0}')
    with home.lock.held("digits"):
        targets = json.loads(call("metrics", "digits", "--local", "-o", "json").stdout)
    assert targets == [{"targets": ["127.0.0.1:4711"], "labels": {"job": "digits", "role": "aggregator"}}]


def test_plotting_what_is_no_report_is_said(call, tmp_path):
    (tmp_path / "r.json").write_text("{}")
    answer = call("plot", "r.json", "-o", "p.png")
    assert answer.exit_code == 2
    assert "r.json" in answer.stderr
