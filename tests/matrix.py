"""`make test-all`: the test suite on every supported Python, and on the lowest versions of the dependencies.

Each row gets a virtual environment of its own (.venv-3.12, .venv-lowest, ...), kept for the next time.
Ends with a table, and with exit code 1 if any row failed or its Python is not on this machine.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROWS = (
    ("3.11", "3.11", "constraints.txt"),
    ("3.12", "3.12", "constraints.txt"),
    ("3.13", "3.13", "constraints.txt"),
    ("lowest", "3.11", "constraints-lowest.txt"),
)


def interpreter(version: str) -> str | None:
    """Find a Python of `version` (such as 3.12): on PATH, or among pyenv's."""
    candidates = [sys.executable, shutil.which(f"python{version}")]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates += [str(path / "bin" / "python") for path in sorted(pyenv.glob(f"{version}.*"))]
    probe = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    for candidate in filter(None, candidates):
        answer = subprocess.run([candidate, "-c", probe], capture_output=True, text=True, check=False)
        if answer.stdout.strip() == version:
            return candidate
    return None


def run_row(name: str, version: str, constraints: str) -> str:
    """Make the row's environment, run the suite in it, and say how it ended."""
    python = interpreter(version)
    if python is None:
        return f"no Python {version} on this machine"
    venv = ROOT / f".venv-{name}"
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    install += ["--constraint", constraints, "--editable", ".[dev]"]
    for command in (
        [python, "-m", "venv", str(venv)],
        [str(venv / "bin" / "python"), *install],
        [str(venv / "bin" / "python"), "-m", "pytest", "-q"],
    ):
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        if code:
            return f"failed: {' '.join(command[1:4])} (exit {code})"
    return "passed"


def main() -> int:
    """Run every row, or those named on the command line."""
    chosen = sys.argv[1:] or [name for name, *_ in ROWS]
    results = {row[0]: run_row(*row) for row in ROWS if row[0] in chosen}
    for name, result in results.items():
        print(f"{name:>8}  {result}")
    return 0 if all(result == "passed" for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
