"""The examples' manifests: one file each for this machine and for a cluster, with the program in it."""

import importlib.util
from pathlib import Path

import pytest

from backupsync.kube.names import PROGRAM_DIRECTORY, program_name
from backupsync.spec import parse_manifest_file

EXAMPLES = Path(__file__).parents[2] / "examples"
manifests = pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)


def embedded(text, directory=EXAMPLES):
    spec = importlib.util.spec_from_file_location("embed", EXAMPLES / "embed.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.embedded(text, directory)


@manifests
def test_the_program_in_the_manifest_is_the_one_beside_it(path):
    text = path.read_text()
    assert embedded(text) == text, "regenerate with `make docs`"
    (config_map,) = parse_manifest_file(text).others
    program = path.with_suffix(".py")
    assert config_map["data"] == {program.name: program.read_text()}


@manifests
def test_on_a_cluster_the_program_is_where_the_worker_looks_for_it(path):
    found = parse_manifest_file(path.read_text())
    (config_map,) = found.others
    pod = found.job.spec.worker.template["spec"]
    (container,) = pod["containers"]
    assert container == {
        "name": "worker",
        "volumeMounts": [{"name": "program", "mountPath": PROGRAM_DIRECTORY}],
    }
    assert pod["volumes"] == [{"name": "program", "configMap": {"name": config_map["metadata"]["name"]}}]
    assert config_map["metadata"]["name"] == program_name(found.job.metadata.name)


def test_what_has_changed_is_written_anew_and_nothing_else(tmp_path):
    (tmp_path / "a.py").write_text('x = 1\n\n\ndef f():\n    return "# end of a.py"\n')
    text = "data:\n  # a.py, by embed.py\n  a.py: |\n    old\n  # end of a.py\n  other: 1\n"
    new = embedded(text, tmp_path)
    assert new == (
        "data:\n  # a.py, by embed.py\n  a.py: |\n    x = 1\n\n\n    def f():\n"
        '        return "# end of a.py"\n  # end of a.py\n  other: 1\n'
    )
    assert embedded(new, tmp_path) == new
