"""The pages of command line and client: as they are made, and with examples that type-check."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from backupsync.cli import reference

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.mark.parametrize("name", sorted(reference.pages()))
def test_a_page_is_as_it_would_be_made(name):
    committed = (DOCS / "reference" / name).read_text(encoding="utf-8")
    assert committed == reference.pages()[name], "make it again: python -m backupsync.cli.reference"


def test_the_pages_are_written_where_asked(tmp_path):
    said = []
    reference.main(tmp_path, said.append)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cli.md", "python-client.md"]
    assert len(said) == 2


def test_the_examples_type_check(tmp_path):
    pytest.importorskip("mypy")
    files = []
    for page in ("reference/python-client.md", "how-to/use-on-a-cluster.md"):
        for block in re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL):
            files.append(tmp_path / f"example_{len(files)}.py")
            files[-1].write_text(block, encoding="utf-8")
    assert len(files) == 2
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "pyproject.toml", *map(str, files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
