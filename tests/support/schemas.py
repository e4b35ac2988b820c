"""Structural schemas as tests read them: the model's, made like a CRD's; walks, and defaulting."""

import copy
from collections.abc import Iterator
from typing import Any

from backupsync.spec import BackupSyncJob

Schema = dict[str, Any]
TOLD = ("type", "enum", "pattern", "multipleOf", "minLength", "maxLength", "minItems", "maxItems")


def model_schema() -> Schema:
    """The schema of the manifest, with every reference and every `or null` resolved."""
    schema = BackupSyncJob.model_json_schema(by_alias=True)
    return _resolved(schema, schema["$defs"])


def _resolved(told: Schema, definitions: Schema) -> Schema:
    if "$ref" in told:
        return _resolved(
            {**definitions[told["$ref"].rsplit("/", 1)[-1]], **_without(told, "$ref")}, definitions
        )
    if "anyOf" in told:
        (one,) = (part for part in told["anyOf"] if part.get("type") != "null")
        return _resolved({**one, **_without(told, "anyOf")}, definitions)
    found = dict(told)
    if "properties" in told:
        found["properties"] = {k: _resolved(v, definitions) for k, v in told["properties"].items()}
    if "items" in told:
        found["items"] = _resolved(told["items"], definitions)
    return found


def _without(told: Schema, key: str) -> Schema:
    return {k: v for k, v in told.items() if k != key}


def nodes(schema: Schema, at: str = "") -> Iterator[tuple[str, Schema]]:
    """Yield (path, schema) of a schema and of everything inside it; items of a list are `path[]`."""
    yield at, schema
    for name, inside in schema.get("properties", {}).items():
        yield from nodes(inside, f"{at}.{name}".lstrip("."))
    if "items" in schema:
        yield from nodes(schema["items"], f"{at}[]")


def facts(told: Schema) -> Schema:
    """What a schema says of a value, in one form for the model (JSON schema) and the CRD (OpenAPI 3.0)."""
    found = {key: told[key] for key in TOLD if key in told}
    found["description"] = " ".join(told.get("description", "").split())
    found["required"] = sorted(told.get("required", []))
    found["names"] = sorted(told.get("properties", {}))
    for end in ("minimum", "maximum"):
        if isinstance(told.get(f"exclusive{end.title()}"), bool):
            found[f"{end}, exclusive"] = told[end]
        elif end in told:
            found[end] = told[end]
        elif f"exclusive{end.title()}" in told:
            found[f"{end}, exclusive"] = told[f"exclusive{end.title()}"]
    if found.get("maximum, exclusive") == 2**63:
        del found["maximum, exclusive"]  # a CRD says it as `format: int64`
    default = told.get("default")
    if default is not None and not isinstance(default, dict):
        found["default"] = default
    return found


def defaulted(schema: Schema, value: Any) -> Any:
    """`value` with every default of the schema filled in, as an API server does it."""
    if isinstance(value, list):
        return [defaulted(schema.get("items", {}), item) for item in value]
    if not isinstance(value, dict):
        return value
    found = dict(value)
    for name, inside in schema.get("properties", {}).items():
        if name not in found and "default" in inside:
            found[name] = copy.deepcopy(inside["default"])
        if name in found:
            found[name] = defaulted(inside, found[name])
    return found


KINDS = {"string": str, "integer": int, "number": int | float, "boolean": bool, "array": list, "object": dict}


def misfits(schema: Schema, value: Any, at: str = "") -> Iterator[str]:
    """Yield what an API server would prune from a value or refuse in it."""
    right = isinstance(value, KINDS[schema["type"]])
    if not right or (schema["type"] != "boolean" and isinstance(value, bool)):
        yield f"{at}: {value!r} is no {schema['type']}"
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{at}: {value!r} is none of {schema['enum']}"
    elif isinstance(value, str):
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
            yield f"{at}: {len(value)} characters"
    elif isinstance(value, list):
        if len(value) > schema.get("maxItems", len(value)):
            yield f"{at}: {len(value)} items"
        for item in value:
            yield from misfits(schema["items"], item, f"{at}[]")
    elif isinstance(value, dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        known = schema.get("properties", {})
        yield from (f"{at}.{name} is unknown" for name in value.keys() - known.keys())
        yield from (f"{at}.{name} is missing" for name in schema.get("required", []) if name not in value)
        for name in value.keys() & known.keys():
            yield from misfits(known[name], value[name], f"{at}.{name}")
