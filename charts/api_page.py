"""The page made from the CRD: `python charts/api_page.py` writes docs/reference/api.md.

What the API server adds to the manifest: names, columns, subresources, the rules by which it refuses, and
every field of `status`. The fields of `spec` have a page of their own, made from the model, to which a test
holds the CRD. A test fails when the committed page differs from what this would write.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[1]
CRD: Final = ROOT / "charts" / "backupsync" / "files" / "crd.yaml"
PAGE: Final = ROOT / "docs" / "reference" / "api.md"
_TITLE: Final = """# The BackupSyncJob API

The fields of `spec` are those of [the manifest](manifest.md), on a cluster and without one;
`kubectl explain bsj.spec --recursive` shows them, too. Here is what the API server adds."""
_HEAD: Final = "| field | type | what |\n|---|---|---|\n"
_KINDS: Final = {"integer": "whole number", "boolean": "true or false", "string": "text"}

Schema = dict[str, Any]


def page(crd: Schema) -> str:
    """Return the text of the page."""
    (version,) = crd["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    sections = [
        "<!-- Made by `python charts/api_page.py` from charts/backupsync/files/crd.yaml; do not edit. -->",
        _opening(crd, version),
        _columns(version),
        "## What the API server refuses\n\n"
        "Beside types, bounds and unknown values, these rules; the message is what you read.\n\n"
        "| field | message |\n|---|---|\n" + "".join(dict.fromkeys(_rules(schema, ""))).rstrip(),
        *_sections("status", schema["properties"]["status"]),
    ]
    return "\n\n".join(sections) + "\n"


def _opening(crd: Schema, version: Schema) -> str:
    names, group = crd["spec"]["names"], crd["spec"]["group"]
    scale = version["subresources"]["scale"]
    rows = {
        "apiVersion": f"`{group}/{version['name']}`",
        "kind": f"`{names['kind']}`",
        "names for kubectl": ", ".join(f"`{n}`" for n in (names["plural"], *names["shortNames"])),
        "category": ", ".join(f"`{c}` (`kubectl get {c}`)" for c in names["categories"]),
        "scope": crd["spec"]["scope"].lower(),
        "`/status`": "written by the operator alone",
        "`/scale`": f"`{scale['specReplicasPath']}` is asked for, `{scale['statusReplicasPath']}` in force",
    }
    table = "".join(f"| {key} | {value} |\n" for key, value in rows.items())
    return f"{_TITLE}\n\n| | |\n|---|---|\n{table.rstrip()}"


def _columns(version: Schema) -> str:
    rows = ""
    for column in version["additionalPrinterColumns"]:
        wide = " Only with `-o wide`." if column.get("priority") else ""
        rows += f"| {column['name']} | `{column['jsonPath']}` | {column['description']}{wide} |\n"
    return f"## Columns of `kubectl get`\n\n| column | from | what |\n|---|---|---|\n{rows.rstrip()}"


def _rules(schema: Schema, path: str) -> Iterator[str]:
    """A row for every rule of a schema and of what is inside it."""
    for rule in schema.get("x-kubernetes-validations", []):
        where = (path + rule.get("fieldPath", "")).lstrip(".")
        yield f"| {f'`{where}`' if where else ''} | {_cell(rule['message'])} |\n"
    for name, inside in schema.get("properties", {}).items():
        yield from _rules(inside, f"{path}.{name}")
    if "items" in schema:
        yield from _rules(schema["items"], f"{path}[]")


def _sections(path: str, schema: Schema) -> Iterator[str]:
    """A section with a table for an object and for every object inside it."""
    inner, rows = [], ""
    for name, told in schema["properties"].items():
        items = told.get("items", told)
        if "properties" in items:
            inner.append((f"{path}.{name}" + ("[]" if items is not told else ""), items))
        rows += f"| `{name}` | {_type(told)} | {_cell(told['description'])} |\n"
    yield f"## `{path}`\n\n{schema['description']}\n\n{_HEAD}{rows.rstrip()}"
    for below, told in inner:
        yield from _sections(below, told)


def _type(told: Schema) -> str:
    if "enum" in told:
        return ", ".join(f"`{value}`" for value in told["enum"])
    if told["type"] == "array":
        return f"list, at most {told['maxItems']}" if "maxItems" in told else "list"
    if told.get("format") == "date-time":
        return "time"
    return _KINDS.get(told["type"], "mapping" if told["type"] == "object" else told["type"])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main(say: Callable[[str], object] = sys.stdout.write) -> None:
    """Write the page."""
    PAGE.write_text(page(yaml.safe_load(CRD.read_text(encoding="utf-8"))), encoding="utf-8")
    say(f"{PAGE}\n")


if __name__ == "__main__":
    main()
