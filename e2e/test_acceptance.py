"""What a newcomer does first: helm install, `kubectl apply -f examples/digits.yaml`, and fetch the model."""

import subprocess
import sys
from pathlib import Path

import yaml
from safetensors.torch import load_file
from torch import nn

from support.api import name_of
from support.job import Job
from support.manifest import merged
from support.space import Space

EXAMPLE = Path(__file__).parents[1] / "examples" / "digits.yaml"


def applied(space: Space, documents: list[dict[str, object]]) -> Job:
    """Apply the example as a user does."""
    text = yaml.safe_dump_all(documents)
    space.api.kubectl("--namespace", space.name, "apply", "-f", "-", text=text)
    return space.job("digits")


def test_the_first_example_succeeds(space: Space) -> None:
    space.api.kubectl("--namespace", space.name, "apply", "-f", str(EXAMPLE))
    job = space.job("digits")
    job.wait(lambda: job.state == "Running")
    assert {name_of(pod) for pod in job.pods()} == {
        "digits-aggregator-1",
        *(f"digits-worker-{rank}-1" for rank in range(6)),
    }

    job.wait_until_succeeded()

    status = job.status
    assert status["progress"]["iteration"] == 400
    assert status["progress"]["percent"] == 100
    assert status["progress"]["evaluation"]["accuracy"] > 0.9
    assert status["startTime"] <= status["completionTime"]
    assert {c["observedGeneration"] for c in status["conditions"]} == {1}
    shown = space.api.kubectl("--namespace", space.name, "get", "bsj", "digits")
    assert "Succeeded" in shown
    assert {"Running", "Completed"} <= {event.reason for event in job.events()}


def test_the_model_of_a_job_with_a_volume_is_fetched_and_loads(space: Space, tmp_path: Path) -> None:
    program, job = yaml.safe_load_all(EXAMPLE.read_text())
    claim = {"volumeClaimTemplate": space.volumes.template("digits"), "path": None}
    kept = merged(job, {"spec": {"checkpoint": claim, "training": {"iterations": 100}}})
    applied(space, [program, kept]).wait_until_succeeded()

    command = ["get-model", "digits", "--namespace", space.name, "--out", str(tmp_path), "--ema"]
    done = subprocess.run(
        [sys.executable, "-m", "backupsync.cli", *command], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    for name in ("model.safetensors", "model-ema.safetensors"):
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        model.load_state_dict(load_file(tmp_path / name))
