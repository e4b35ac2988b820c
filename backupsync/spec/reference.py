"""The reference pages that are made from the models: `python -m backupsync.spec.reference` writes them.

docs/reference/manifest.md and profile.md come from the pydantic models, trace.md and report.md from the
docstrings of backupsync.trace and backupsync.report. A test fails when a committed page differs from what
this would write.
"""

import ast
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from pydantic import BaseModel

from backupsync import trace
from backupsync.inject.profile import Profile
from backupsync.report import model
from backupsync.spec.job import BackupSyncJob

Schema = dict[str, Any]

_BOUNDS: Final = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "multipleOf": "multiple of {}",
    "minLength": "{} or more characters",
    "maxLength": "at most {} characters",
    "minItems": "{} or more",
    "maxItems": "at most {}",
}
_KINDS: Final = {"integer": "whole number", "boolean": "true or false", "object": "mapping", None: "anything"}
_HEAD: Final = "| field | type | default | what |\n|---|---|---|---|\n"
_MANIFEST: Final = """# The manifest

What `backupsync run` and `backupsync validate` read. Fields are camelCase; unknown ones are refused with a
suggestion, and no value is converted from another kind (`"4"` and `true` are no numbers). Every problem is
said at once.
"""
_PROFILE: Final = """# The injection profile

What `backupsync run --inject` reads; [Inject stragglers](../how-to/inject-stragglers.md) shows how to use it.
"""
_REPORT: Final = "# The report\n\n"
_TRACE: Final = "# The trace\n\n"


def pages() -> dict[str, str]:
    """Return the text of every page by its file name in docs/reference."""
    return {
        "manifest.md": _page(_MANIFEST, model_sections(BackupSyncJob)),
        "report.md": _page(_REPORT + str(model.__doc__), reversed(list(struct_sections(model)))),
        "profile.md": _page(_PROFILE, model_sections(Profile)),
        "trace.md": _page(_TRACE + str(trace.__doc__), struct_sections(trace)),
    }


def model_sections(root: type[BaseModel]) -> Iterator[str]:
    """Yield a section with a table for a model and for every model inside it, outermost first."""
    schema = root.model_json_schema(by_alias=True)
    definitions = schema.get("$defs", {})
    yield from _section("The document", schema, definitions)


def struct_sections(module: ModuleType) -> Iterator[str]:
    """Yield a section with a table for every structure of a module, from its docstrings."""
    for node in ast.parse(inspect.getsource(module)).body:
        if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
            continue
        tags = [keyword.value for keyword in node.keywords if keyword.arg == "tag"]
        title = ast.literal_eval(tags[0]) if tags else node.name
        rows = "".join(_struct_rows(node))
        if rows:
            yield f"## `{title}`\n\n{ast.get_docstring(node)}\n\n{_HEAD}{rows}"


def _page(head: str, sections: Iterator[str]) -> str:
    made = "<!-- Made by `python -m backupsync.spec.reference`; do not edit. -->\n\n"
    return made + head.strip() + "\n\n" + "\n".join(sections)


def _section(path: str, schema: Schema, definitions: dict[str, Schema]) -> Iterator[str]:
    required = schema.get("required", [])
    rows, inner = [], []
    for name, told in schema.get("properties", {}).items():
        inner += [(name, child) for child in _children(told, definitions)]
        if "const" in told and name == "kind" and "apiVersion" not in schema["properties"]:
            continue  # the heading says it
        default = "required" if name in required else _default(told)
        said = told.get("description") or _resolve(told, definitions).get("description", "")
        what = " ".join(said.split())
        rows.append(f"| `{name}` | {_type(told, definitions)} | {default} | {_cell(what)} |\n")
    if schema.get("additionalProperties") is True:
        rows.append("| any other | anything | | Passed on as a keyword of the class. |\n")
    text = schema.get("description", "")
    yield f"## {path}\n\n{text}\n\n{_HEAD}" + "".join(rows)
    for name, child in inner:
        below = name if path == "The document" else f"{path.strip('`')}.{name}"
        title = f"`{below}`" + (f", `kind: {_kind(child)}`" if _kind(child) else "")
        yield from _section(title, child, definitions)


def _children(told: Schema, definitions: dict[str, Schema]) -> list[Schema]:
    """The models that a field may hold, itself or in a list."""
    if "$ref" in told:
        found = _resolve(told, definitions)
        return [found] if "properties" in found else []
    parts: list[Schema] = [told[key] for key in ("items",) if key in told]
    parts += [part for key in ("allOf", "anyOf", "oneOf") for part in told.get(key, [])]
    return [child for part in parts for child in _children(part, definitions)]


def _kind(schema: Schema) -> str | None:
    kind = schema.get("properties", {}).get("kind", {}).get("const")
    return kind if kind != "BackupSyncJob" else None


def _resolve(told: Schema, definitions: dict[str, Schema]) -> Schema:
    return definitions[told["$ref"].rsplit("/", 1)[-1]] if "$ref" in told else told


def _type(told: Schema, definitions: dict[str, Schema]) -> str:
    told = _resolve(told, definitions)
    choices: list[Schema] = told.get("anyOf") or told.get("oneOf") or []
    if choices:
        parts = [_type(part, definitions) for part in choices]
        return " or ".join(dict.fromkeys(part for part in parts if part != "null"))
    if "const" in told:
        return f"`{told['const']}`"
    if "enum" in told:
        return ", ".join(f"`{value}`" for value in told["enum"])
    bounds = ", ".join(text.format(_number(told[key])) for key, text in _BOUNDS.items() if key in told)
    kind = told.get("type")
    name = _list(told["items"], definitions) if kind == "array" else _KINDS.get(kind, str(kind))
    return _cell(f"{name}, {bounds}" if bounds else name)


def _list(items: Schema, definitions: dict[str, Schema]) -> str:
    item = _type(items, definitions)
    return f"list of ({item})" if "," in item else f"list of {item}"


def _default(told: Schema) -> str:
    value = told.get("default")
    if value is None:
        return "none"
    if isinstance(value, dict | list):
        return "see below" if value and isinstance(value, dict) else ("empty" if not value else f"`{value}`")
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{_number(value)}`"


def _number(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "2^63" if value == 2**63 else str(value)


def _struct_rows(node: ast.ClassDef) -> Iterator[str]:
    for statement, after in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign):
            continue
        said = after.value if isinstance(after, ast.Expr) else None
        what = str(said.value) if isinstance(said, ast.Constant) else ""
        default = f"`{ast.unparse(statement.value)}`" if statement.value else "always"
        name, kind = ast.unparse(statement.target), _cell(ast.unparse(statement.annotation))
        yield f"| `{name}` | {kind} | {default} | {_cell(' '.join(what.split()))} |\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(directory: Path, say: Callable[[str], object] = sys.stdout.write) -> None:
    """Write every page into `directory`."""
    for name, text in pages().items():
        (directory / name).write_text(text, encoding="utf-8")
        say(f"{directory / name}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("docs/reference"))
