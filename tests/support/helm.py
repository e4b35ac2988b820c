"""The helm binary as tests use it: values in, objects or the words of a refusal out."""

import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import yaml

Object = dict[str, Any]


class Rendered(list[Object]):
    """The objects of a rendered chart."""

    def of(self, kind: str, suffix: str = "") -> list[Object]:
        """Those of a kind whose name ends so."""
        return [o for o in self if o["kind"] == kind and o["metadata"]["name"].endswith(suffix)]

    def one(self, kind: str, suffix: str = "") -> Object:
        """The only one of a kind whose name ends so."""
        (found,) = self.of(kind, suffix)
        return found

    def names(self) -> set[tuple[str, str]]:
        """(kind, name) of all."""
        return {(o["kind"], o["metadata"]["name"]) for o in self}


class Refused(Exception):  # noqa: N818 -- what happened
    """Helm would not render it; the message is helm's."""


class Helm(NamedTuple):
    """A helm binary and a chart."""

    binary: Path
    chart: Path

    def template(
        self, values: Object | None = None, *arguments: str, release: str = "backupsync"
    ) -> Rendered:
        """Return the objects of the chart. Raises Refused."""
        text = self.run("template", release, str(self.chart), "-n", "system", *arguments, values=values)
        return Rendered(filter(None, yaml.safe_load_all(text)))

    def run(self, *arguments: str, values: Object | None = None) -> str:
        """Run helm; `values` go by its standard input. Returns what it prints. Raises Refused."""
        given = [] if values is None else ["--values", "-"]
        done = subprocess.run(
            [str(self.binary), *arguments, *given],
            input=yaml.safe_dump(values or {}),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Refused(done.stdout + done.stderr)
        return done.stdout
