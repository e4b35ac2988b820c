"""What the command line costs before it does anything, and what it needs for a cluster alone."""

import subprocess
import sys

import pytest

HEAVY = ("kubernetes", "torch", "numpy", "zmq", "safetensors", "matplotlib", "aiohttp", "kopf")


def python(text: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", text]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_no_command_pays_for_what_it_does_not_use():
    done = python(
        "import sys; import backupsync.cli.app, backupsync.cluster; "
        f"print(sorted(name for name in {HEAVY!r} if name in sys.modules))"
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("command", ["list", "--help"])
def test_the_extra_of_the_cluster_is_enough(command, tmp_path):
    absent = ("torch", "numpy", "zmq", "safetensors", "matplotlib", "setproctitle")
    text = (
        "import sys; "
        f"[sys.modules.__setitem__(name, None) for name in {absent!r}]; "
        f"sys.argv = ['backupsync', {command!r}, '--kubeconfig', {str(tmp_path / 'none')!r}]; "
        "from backupsync.cli import main; main()"
    )
    done = python(text)
    assert "which is not installed" not in done.stderr
    if command == "list":
        assert done.returncode == 2
        assert "there is no such file; name one by --kubeconfig FILE" in done.stderr


def test_without_the_client_the_remedy_is_named():
    done = python(
        "import sys; sys.modules['kubernetes'] = None; "
        "sys.argv = ['backupsync', 'list', '--cluster']; from backupsync.cli import main; main()"
    )
    assert done.returncode == 2
    assert "pip install 'backupsync[cluster]'" in done.stderr
    assert "Traceback" not in done.stderr
