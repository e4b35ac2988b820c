"""`make test-all`: the test suite on every supported Python, and on the lowest versions of the dependencies.

Each row gets a virtual environment of its own (.venv-3.12, .venv-lowest, ...) of some 5 GB, kept for the
next time unless run with --remove. Ends with a table, and with exit code 1 if any row failed or its Python is
not here. One row: `make test-all ROWS=lowest`; a part of the suite: `make test-all ARGS="-x tests/wire"`.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FULL = ".[test,cluster,operator]"
ROWS = (
    ("3.11", "3.11", "constraints.txt", FULL),
    ("3.12", "3.12", "constraints.txt", FULL),
    ("3.13", "3.13", "constraints.txt", FULL),
    # Without the extras whose client wants newer versions; tests/conftest.py leaves their tests out.
    ("lowest", "3.11", "constraints-lowest.txt", ".[test]"),
)


def interpreter(version: str) -> str | None:
    """Find a Python of `version` (such as 3.12): this one, on PATH, or among pyenv's."""
    candidates = [sys.executable, shutil.which(f"python{version}"), shutil.which("python3")]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates += [str(path / "bin" / "python") for path in sorted(pyenv.glob(f"{version}.*"))]
    probe = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    for candidate in filter(None, candidates):
        answer = subprocess.run([candidate, "-c", probe], capture_output=True, text=True, check=False)
        if answer.stdout.strip() == version:
            return candidate
    return None


def run_row(version: str, constraints: str, what: str, venv: Path, pytest_args: list[str]) -> str:
    """Make the row's environment, run the suite in it, and say how it ended."""
    python = interpreter(version)
    if python is None:
        return f"no Python {version} with venv here: put python{version} on PATH, or pyenv install {version}"
    inside = str(venv / "bin" / "python")
    install = ["install", "--quiet", "--disable-pip-version-check", "--constraint", constraints]
    steps = {
        "making the environment": [python, "-m", "venv", str(venv)],
        "installing": [inside, "-m", "pip", *install, "--editable", what],
        "the tests": [inside, "-m", "pytest", "-q", *pytest_args],
    }
    for step, command in steps.items():
        print(f"-- {venv.name}: {step}", flush=True)
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        if code:
            return f"failed: {step} (exit {code})"
    return "passed"


def main() -> int:
    """Run every row, or those named on the command line."""
    parser = argparse.ArgumentParser(description="Run the tests on every supported set of versions.")
    parser.add_argument("rows", nargs="*", help="rows to run: " + ", ".join(name for name, *_ in ROWS))
    parser.add_argument("--remove", action="store_true", help="delete a row's environment once it has passed")
    parser.add_argument("--args", default="", help="arguments for pytest, in one string")
    options = parser.parse_args()
    if unknown := set(options.rows) - {name for name, *_ in ROWS}:
        parser.error(f"no row {', '.join(sorted(unknown))}: there are {', '.join(name for name, *_ in ROWS)}")
    results = {}
    for name, version, constraints, what in ROWS:
        if options.rows and name not in options.rows:
            continue
        began, venv = time.monotonic(), ROOT / f".venv-{name}"
        result = run_row(version, constraints, what, venv, options.args.split())
        if options.remove and result == "passed":
            shutil.rmtree(venv)
        results[name] = f"{result} ({time.monotonic() - began:.0f} s)"
    print("\n".join(f"{name:>8}  {result}" for name, result in results.items()))
    return 0 if all(result.startswith("passed") for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
