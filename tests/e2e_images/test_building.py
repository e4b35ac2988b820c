"""Which base and which name an image gets, and what every Dockerfile promises."""

import re
from pathlib import Path

import pytest
from images import __main__ as building
from images import bases
from images.tool import Tool, ToolError

ROOT = Path(__file__).parents[2]
DOCKERFILES = [ROOT / folder / "Dockerfile" for folder in building.FOLDERS.values()]
each_dockerfile = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)


class Recorder(Tool):
    """A tool that builds nothing, and says what it was asked for."""

    def __init__(self, name="docker"):
        super().__init__(name)
        self.built = {}

    def build(self, dockerfile, context, tag, arguments):
        self.built[tag] = (dockerfile, dict(arguments))

    def size(self, tag):
        return "1 GB"

    def has(self, tag):
        return True


def arguments_of(role, tool="docker", **environment):
    return building.base_arguments(Recorder(tool), role, environment)


def test_the_dockerfile_of_each_role_is_built_under_its_name():
    tool = Recorder()
    names = building.build(tool, {"REGISTRY": "registry.example/team", "TAG": "7", "EXTRAS": "worker"})
    assert names == [f"registry.example/team/backupsync-{role}:7" for role in building.FOLDERS]
    assert [dockerfile for dockerfile, _ in tool.built.values()] == DOCKERFILES
    assert [arguments.get("EXTRAS") for _, arguments in tool.built.values()] == [None, None, "worker"]


def test_without_a_word_images_stay_here_under_the_projects_version():
    names = building.build(Recorder(), {})
    assert names[0] == f"localhost/backupsync-operator:{building.project_version()}"


def test_labels_and_the_ways_to_a_package_index_are_passed_on():
    tool = Recorder()
    building.build(
        tool, {"SOURCE": "https://git.example", "PIP_INDEX_URL": "https://index.example", "X": "1"}
    )
    for _, arguments in tool.built.values():
        assert arguments["SOURCE"] == "https://git.example"
        assert arguments["PIP_INDEX_URL"] == "https://index.example"
        assert {"VERSION", "REVISION"} <= arguments.keys()
        assert not {"X", "PIP_CERT"} & arguments.keys()


@pytest.mark.parametrize("role", building.FOLDERS)
def test_docker_and_podman_take_the_dockerfiles_own_base(role):
    assert arguments_of(role) == arguments_of(role, "podman") == {}


def test_a_base_that_is_named_is_taken():
    assert arguments_of("worker", PYTHON_IMAGE="p") == {"PYTHON_IMAGE": "p"}
    assert arguments_of("operator", "buildah", PYTHON_IMAGE="p") == {"PYTHON_IMAGE": "p"}
    assert arguments_of("worker", TORCH_IMAGE="t", PYTHON_IMAGE="p") == {"PYTHON_IMAGE": "t"}
    assert arguments_of("operator", TORCH_IMAGE="t") == {}


def test_buildah_makes_the_bases_itself_where_it_can(monkeypatch):
    monkeypatch.setattr(bases, "can_be_made", lambda: True)
    assert arguments_of("aggregator", "buildah") == {"PYTHON_IMAGE": bases.TORCH}
    assert arguments_of("operator", "buildah") == {"PYTHON_IMAGE": bases.PYTHON, "BUILD_IMAGE": bases.TORCH}
    monkeypatch.setattr(bases, "can_be_made", lambda: False)
    assert arguments_of("operator", "buildah") == {}


def test_where_no_tool_works_each_says_why(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ToolError, match=r"docker: is not installed\n  podman: .*\n  buildah: is not"):
        Tool.found()
    with pytest.raises(ToolError, match="BUILDER = 'kaniko': must be one of docker, podman, buildah"):
        Tool.found("kaniko")


@each_dockerfile
def test_every_image_runs_as_a_number_on_a_read_only_root(path):
    final = path.read_text().rpartition("\nFROM ")[2]
    assert "USER 65532:65532\n" in final
    assert re.search(r'^ENTRYPOINT \["python3", "-m", "backupsync_\w+"\]$', final, re.MULTILINE)
    assert "PYTHONDONTWRITEBYTECODE=1" in final
    assert "HOME=/tmp" in final
    assert "RUN" not in final, "nothing of the build stays in it"
    labels = set(re.findall(r"org\.opencontainers\.image\.(\w+)=", final))
    assert {"title", "description", "licenses", "version", "revision", "source"} == labels


@each_dockerfile
def test_the_base_can_be_chosen_and_no_host_is_named(path):
    text = path.read_text()
    assert text.count("FROM ${PYTHON_IMAGE}") + text.count("FROM ${BUILD_IMAGE}") == 2
    assert "://" not in text


@each_dockerfile
def test_what_is_copied_is_let_through(path):
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    let_through = {line[1:] for line in ignored if line.startswith("!")}
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", path.read_text(), re.MULTILINE):
        for source in line.split():
            assert any(one == source or one.startswith(f"{source}/") for one in let_through), source
