"""Where a worker looks for the user's program: in its image's directory, or where it is mounted."""

import pytest
from rendering import container, render

from backupsync.lifecycle.types import ReplicaId

MOUNTS = [{"name": "program", "mountPath": "/program"}]


def working_directory(role="worker", **fields):
    template = {"spec": {"containers": [{"name": role, **fields}]}}
    made = render(ReplicaId(role, 0, 1), {role: {"template": template}})
    return container(made, role).get("workingDir")


@pytest.mark.parametrize("path", ["/program", "/program/", "/program/pkg"])
def test_a_program_that_is_mounted_is_found_in_any_image(path):
    mounts = [{"name": "program", "mountPath": path}]
    assert working_directory(image="mine:1", volumeMounts=mounts) == "/program"


@pytest.mark.parametrize("path", ["/programs", "/data/program", "/"])
def test_other_volumes_leave_the_images_directory_alone(path):
    assert working_directory(volumeMounts=[{"name": "data", "mountPath": path}]) is None


def test_without_a_mount_the_images_directory_stands():
    assert working_directory(image="mine:1") is None


def test_a_directory_of_the_users_wins():
    assert working_directory(workingDir="/app", volumeMounts=MOUNTS) == "/app"


def test_an_aggregator_runs_no_program():
    assert working_directory("aggregator", volumeMounts=MOUNTS) is None
