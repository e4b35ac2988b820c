"""The committed examples: each is trained until its loss is below a bound, and its model comes back."""

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from engine_job import EngineJob
from safetensors.torch import load_file
from typer.testing import CliRunner

from backupsync.cli.app import app
from backupsync.spec import parse_manifest_file

EXAMPLES = Path(__file__).parents[2] / "examples"


class Trained(NamedTuple):
    """An example that ran to its end."""

    job: EngineJob
    program: Any
    """The program of the manifest's entrypoint; None for a script."""

    def model(self, file: str = "model.safetensors") -> torch.nn.Module:
        """The program's own model with the trained tensors in it."""
        model = self.program.model()
        model.load_state_dict(load_file(self.job.directory / "out" / file))
        return model.eval()

    def loss(self) -> float:
        """Mean training loss of the last ten updates."""
        last = [update.loss for update in self.job.updates()[-10:]]
        return sum(last) / len(last)


@pytest.fixture(scope="module")
def train(module_jobs: Callable[[str], EngineJob]) -> Callable[..., Trained]:
    """Run examples/NAME.yaml with N = 2, b = 1 and a few changes that make it shorter."""
    done: dict[str, Trained] = {}

    def run(name: str, dtype: str = "float32", **training: Any) -> Trained:
        key = f"{name}-{dtype}"
        if key not in done:
            done[key] = run_example(module_jobs(key.replace("_", "-")), name, dtype, training)
        return done[key]

    return run


def run_example(job: EngineJob, name: str, dtype: str, training: dict[str, Any]) -> Trained:
    document = parse_manifest_file((EXAMPLES / f"{name}.yaml").read_text()).document
    spec = document["spec"]
    document["metadata"]["name"] = job.name
    spec["aggregation"].update(workers=2, backupWorkers=1, wire={"dtype": dtype})
    spec["training"] |= {"threads": 1, **training}
    spec["checkpoint"]["path"] = str(job.directory / "out")
    job.manifest.write_text(yaml.safe_dump(document))
    (job.directory / f"{name}.py").symlink_to(EXAMPLES / f"{name}.py")
    result = CliRunner().invoke(app, ["run", str(job.manifest), "--state-dir", str(job.state)])
    assert result.exit_code == 0, f"{result.output}\n{job.explain()}"
    return Trained(job, program_of(spec["program"]))


def program_of(spec: dict[str, Any]) -> Any:
    if "entrypoint" not in spec:
        return None
    module, _, kind = spec["entrypoint"].partition(":")
    return getattr(load(EXAMPLES / f"{module}.py"), kind)(**spec.get("args", {}))


def load(path: Path) -> ModuleType:
    name = f"example_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def digits(train: Callable[..., Trained]) -> Trained:
    return train("digits", iterations=300)


@pytest.fixture(scope="module")
def cnn(train: Callable[..., Trained]) -> Trained:
    return train("cnn", epochs=6)


@pytest.fixture(scope="module")
def charlm(train: Callable[..., Trained]) -> Trained:
    return train("charlm", examples=2560)


def test_digits_learns_and_its_model_reaches_the_accuracy_of_the_report(digits: Trained) -> None:
    assert digits.loss() < 0.15
    reported = digits.job.report["final"]
    assert reported["accuracy"] > 0.93
    again = digits.program.evaluate(digits.model("model-ema.safetensors"))
    assert again["accuracy"] == pytest.approx(reported["accuracy"], abs=1e-6)
    assert digits.program.evaluate(digits.model())["accuracy"] > 0.93


def test_bfloat16_on_the_wire_reaches_about_the_same_loss(
    digits: Trained, train: Callable[..., Trained]
) -> None:
    half = train("digits", "bfloat16", iterations=300)
    assert half.loss() == pytest.approx(digits.loss(), abs=0.08)
    assert half.job.report["final"]["accuracy"] == pytest.approx(
        digits.job.report["final"]["accuracy"], abs=0.03
    )


def test_cnn_learns_and_its_running_statistics_come_back(cnn: Trained) -> None:
    assert cnn.loss() < 0.7
    model = cnn.model()
    norm = model[1]
    assert isinstance(norm, torch.nn.BatchNorm2d)
    assert norm.num_batches_tracked == len(cnn.job.updates())
    assert not torch.equal(norm.running_mean, torch.zeros(8))
    reported = cnn.job.report["final"]["accuracy"]
    assert reported > 0.7
    assert cnn.program.evaluate(model)["accuracy"] == pytest.approx(reported, abs=1e-3)
    norm.reset_running_stats()
    assert cnn.program.evaluate(model)["accuracy"] < reported


def test_charlm_learns_and_its_head_stays_tied_to_its_embedding(charlm: Trained) -> None:
    first = charlm.job.updates()[0].loss
    assert first > 4.0
    assert charlm.loss() < 3.4
    tensors = load_file(charlm.job.directory / "out" / "model.safetensors")
    assert torch.equal(tensors["head.weight"], tensors["embedding.weight"])
    model = charlm.model("model-ema.safetensors")
    assert model.head.weight is model.embedding.weight
    with torch.no_grad():
        loss = charlm.program.evaluate(model)["test_loss"]
    assert loss == pytest.approx(charlm.job.report["final"]["test_loss"], abs=1e-3)


def test_ones_own_loop_learns(train: Callable[..., Trained]) -> None:
    own = train("own_loop", iterations=150)
    assert own.loss() < 0.65
    weights = load_file(own.job.directory / "out" / "model.safetensors")
    model = torch.nn.Sequential(torch.nn.Linear(10, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
    model.load_state_dict(weights)
    x, y = load(EXAMPLES / "own_loop.py").load().tensors
    with torch.no_grad():
        assert (model(x) - y).square().mean().item() < 0.65


def test_every_example_has_a_test() -> None:
    source = Path(__file__).read_text()
    manifests = {path.stem for path in EXAMPLES.glob("*.yaml")}
    assert manifests == set(re.findall(r'train\(\s*"(\w+)"', source))
