"""Write each example's program into the ConfigMap of its manifest: `python examples/embed.py` (`make docs`).

A cluster sees the manifest alone, `backupsync run` the program beside it: so the manifest carries a copy,
between two marks, and a test holds the two together.
"""

import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
MARKS = re.compile(r"^  # (?P<name>\S+), by embed\.py\n.*?^  # end of (?P=name)\n", re.DOTALL | re.MULTILINE)


def embedded(manifest: str, directory: Path = HERE) -> str:
    """Return `manifest` with the files that its marks name written between them."""

    def block(found: re.Match[str]) -> str:
        name = found["name"]
        lines = (directory / name).read_text(encoding="utf-8").splitlines()
        body = "".join(f"    {line}\n" if line else "\n" for line in lines)
        return f"  # {name}, by embed.py\n  {name}: |\n{body}  # end of {name}\n"

    return MARKS.sub(block, manifest)


if __name__ == "__main__":
    for path in sorted(HERE.glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        new = embedded(text)
        if new != text:
            path.write_text(new, encoding="utf-8")
            sys.stdout.write(f"{path}\n")
