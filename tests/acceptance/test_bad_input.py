"""What cannot run is refused in words that name the field or the peer, and leaves nothing half-written."""

from collections.abc import Callable
from typing import Any

import pytest
import yaml
from engine_job import EngineJob, failed_with
from typer.testing import CliRunner

from backupsync.cli.app import app
from backupsync.trace import Gradient, Resumed

TROUBLES = {
    "N below 1": ({"aggregation": {"workers": 0}}, "spec.aggregation.workers = 0"),
    "b below 0": ({"aggregation": {"backupWorkers": -1}}, "spec.aggregation.backupWorkers = -1"),
    "two ends": ({"training": {"epochs": 2}}, "set exactly one of iterations, examples, epochs"),
    "no end": ({"training": {"iterations": None}}, "set exactly one of iterations, examples, epochs"),
    "N of a wrong kind": ({"aggregation": {"workers": "many"}}, "spec.aggregation.workers = 'many'"),
    "an unknown field": ({"training": {"iteration": 3}}, "spec.training.iteration"),
    "no such optimizer": ({"training": {"optimizer": {"name": "SDG", "lr": 0.1}}}, "spec.training.optimizer"),
    "no such script": ({"program": {"entrypoint": None, "script": "gone.py"}}, "spec.program.script"),
}


def run(job: EngineJob, *options: str) -> tuple[int, str]:
    """`backupsync run job.yaml`, in this process."""
    result = CliRunner().invoke(app, ["run", str(job.manifest), "--state-dir", str(job.state), *options])
    assert "Traceback" not in result.output
    return result.exit_code, result.output


def nothing_is_written(job: EngineJob) -> bool:
    """Whether the state directory holds nothing but, perhaps, the lock."""
    return [path.name for path in job.state.rglob("*") if path.is_file() and path.name != "lock"] == []


def checkpoints_of(job: EngineJob) -> list[str]:
    """Checkpoints and models of a job that never should have any."""
    return [path.name for path in job.home.checkpoints.glob("*") if not path.name.startswith(("claims", "."))]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_manifest_that_cannot_run_is_refused_by_field_before_anything_is_written(
    jobs: Callable[[str], EngineJob], trouble: str
) -> None:
    changes, said = TROUBLES[trouble]
    job = jobs("refused").write(**changes)
    code, output = run(job)
    assert code == 2
    assert said in output
    assert nothing_is_written(job)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("spec: {training: [", "line 1, column 19"),
        ("- a list", "job.yaml"),
        (yaml.safe_dump({"apiVersion": "backupsync.dev/v1alpha1", "kind": "Job"}), "kind = 'Job'"),
    ],
    ids=["malformed YAML", "no mapping", "another kind"],
)
def test_a_file_that_is_no_manifest_is_refused(
    jobs: Callable[[str], EngineJob], text: str, said: str
) -> None:
    job = jobs("refused")
    job.manifest.write_text(text)
    code, output = run(job)
    assert code == 2
    assert said in output
    assert nothing_is_written(job)


def test_a_checkpoint_directory_that_cannot_be_written_is_refused(jobs: Callable[[str], EngineJob]) -> None:
    job = jobs("unwritable")
    (job.directory / "file").write_text("in the way")
    path = str(job.directory / "file" / "out")
    job.write(checkpoint={"path": path})
    code, output = run(job)
    assert code == 2
    assert f"spec.checkpoint.path = {path!r}: cannot be written: Not a directory" in output
    assert nothing_is_written(job)


PROGRAMS: dict[str, tuple[dict[str, Any], str, tuple[str, ...]]] = {
    "no such module": (
        {"entrypoint": "faullty:Sound"},
        "ProgramRefused",
        ("spec.program.entrypoint = 'faullty:Sound'", "did you mean faulty?"),
    ),
    "methods missing": (
        {"entrypoint": "faulty:Unfinished"},
        "ProgramRefused",
        ("Unfinished lacks the method(s) dataset, loss",),
    ),
    "no parameters": ({"entrypoint": "faulty:WithoutParameters"}, "ProgramRefused", ("parameters",)),
    "another model on one worker": (
        {"entrypoint": "faulty:DifferentOnRankOne"},
        "ProgramRefused",
        ("the model of rank", "differs from the job's: tensor 'weight' is trainable float32["),
    ),
    "not enough memory": (
        {"entrypoint": "faulty:OutOfMemory"},
        "BackoffLimitExceeded",
        ("as when memory runs out: lower spec.training.batchSize",),
    ),
}


@pytest.mark.parametrize("trouble", PROGRAMS)
def test_a_program_that_cannot_be_trained_fails_the_job_in_clear_words(
    jobs: Callable[[str], EngineJob], trouble: str
) -> None:
    program, reason, words = PROGRAMS[trouble]
    job = jobs("faulty").write(
        program=program,
        aggregation={"workers": 2},
        runPolicy={"backoffLimit": 0},
    )
    result = CliRunner().invoke(app, ["run", str(job.manifest), "--state-dir", str(job.state)])
    assert result.exit_code == 1, result.output
    assert failed_with(job)[0] == reason
    assert f"{reason}: " in result.output
    for word in words:
        assert word in result.output
    assert {history.attempts for history in job.status.ranks} == {1}
    assert not [name for name in checkpoints_of(job) if not name.startswith("checkpoint-00000000-")]


def test_gradients_that_are_not_finite_are_never_applied_and_end_the_job_as_diverged(
    jobs: Callable[[str], EngineJob],
) -> None:
    job = jobs("diverged").write(
        program={"entrypoint": "faulty:NotFinite"}, aggregation={"workers": 1, "nonFiniteLimit": 3}
    )
    code, output = run(job)
    assert code == 1
    assert failed_with(job)[0] == "Diverged"
    assert "3 gradients in a row held NaN or infinity" in output
    gradients = job.lines(Gradient)
    assert [(g.outcome, g.reason) for g in gradients] == [("refused", "not-finite")] * 3
    assert not job.updates()


def test_a_damaged_checkpoint_is_stepped_over_and_one_of_another_model_is_refused(
    jobs: Callable[[str], EngineJob],
) -> None:
    job = jobs("damaged")
    endless = {"training": {"iterations": 100_000}, "checkpoint": {"everyIterations": 5}}
    job.write(program={"entrypoint": "faulty:Uneven"}, **endless).start()
    job.wait_for_iteration(8)
    assert job.stop() == 130, job.explain()
    newest, before = sorted(job.home.checkpoints.glob("checkpoint-*"), reverse=True)[:2]
    state = newest / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-7])
    job.start()
    job.wait(lambda: bool(job.lines(Resumed)))
    assert job.lines(Resumed)[0].iteration == int(before.name.split("-")[1])
    assert f"{newest.name}: state.safetensors: SHA-256 differs" in job.home.aggregator_log(2).read_text()
    assert job.stop() == 130, job.explain()

    job.write(program={"entrypoint": "faulty:Uneven", "args": {"size": 5}}, **endless)
    code, output = run(job)
    assert code == 1
    assert "tensor 'weight' is trainable float32[1, 5], the job's is trainable float32[1, 4]" in output
    assert failed_with(job)[0] == "ProgramRefused"
