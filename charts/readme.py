"""The pages made from the chart's values.yaml: `python charts/readme.py` writes them.

A value is documented by the `# --` comment above it. The chart's README and docs/reference/helm.md hold the
table of all of them; a test fails when a committed page differs from what this would write, or where a value
has no comment.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

ROOT: Final = Path(__file__).parents[1]
CHART: Final = ROOT / "charts" / "backupsync"
PAGES: Final = ("charts/backupsync/README.md", "docs/reference/helm.md")
MARK: Final = "<!-- Below: made by `python charts/readme.py` from values.yaml; do not edit. -->\n"
_LONGEST: Final = 60
"""Characters of a default that the table still shows."""
_KEY: Final = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z][\w-]*):")


class Value(NamedTuple):
    """One documented value."""

    path: str
    default: Any
    what: str


def described(text: str) -> Iterator[Value]:
    """Yield every value of a values.yaml that a `# --` comment stands above."""
    values = yaml.safe_load(text)
    parents: list[str] = []
    said: list[str] = []
    for line in text.splitlines():
        comment = line.strip()
        if comment.startswith("# --"):
            said = [comment.removeprefix("# --").strip()]
        elif comment.startswith("#") and said:
            said.append(comment.removeprefix("#").strip())
        elif match := _KEY.match(line):
            parents = [*parents[: len(match["indent"]) // 2], match["key"]]
            if said:
                yield Value(".".join(parents), _at(values, parents), " ".join(said))
            said = []


def leaves(values: Any, described_paths: set[str], at: str = "") -> Iterator[str]:
    """Yield the path of every value that is no group of further values, or is documented as a whole."""
    if isinstance(values, dict) and values and at not in described_paths:
        for key, inside in values.items():
            yield from leaves(inside, described_paths, f"{at}.{key}".lstrip("."))
    else:
        yield at


def table(text: str) -> str:
    """Return the table of a values.yaml."""
    rows = "".join(f"| `{v.path}` | {_default(v.default)} | {_cell(v.what)} |\n" for v in described(text))
    return f"| value | default | what |\n|---|---|---|\n{rows}"


def pages() -> dict[str, str]:
    """Return the text of every page by its path in the repository: what stands above the mark stays."""
    values = table((CHART / "values.yaml").read_text(encoding="utf-8"))
    heads = {name: (ROOT / name).read_text(encoding="utf-8").partition(MARK)[0] for name in PAGES}
    return {name: f"{head}{MARK}\n{values}" for name, head in heads.items()}


def _at(values: Any, path: list[str]) -> Any:
    for key in path:
        values = values[key]
    return values


def _default(value: Any) -> str:
    shown = json.dumps(value)
    return f"`{shown}`" if len(shown) <= _LONGEST else "see values.yaml"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(root: Path, say: Callable[[str], object] = sys.stdout.write) -> None:
    """Write every page below the root of the repository."""
    for name, text in pages().items():
        (root / name).write_text(text, encoding="utf-8")
        say(f"{root / name}\n")


if __name__ == "__main__":
    main(ROOT)
