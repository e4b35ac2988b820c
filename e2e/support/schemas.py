"""Schemas for kubeconform, from the API server itself: nothing is downloaded, and they are of its version."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.api import Api

Schema = dict[str, Any]
_INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_HERE = "#/definitions/"
LOCATION = "{{.ResourceKind}}{{.KindSuffix}}.json"
"""What kubeconform makes the name of a schema's file of: `deployment-apps-v1.json`."""


def write_schemas(api: Api, directory: Path) -> str:
    """Write a strict schema of every kind of the API into `directory`; return where kubeconform looks."""
    told = json.loads(api.raw("GET", "/openapi/v2"))["definitions"]
    definitions = {name: _strict(schema) for name, schema in told.items()}
    definitions[_INT_OR_STRING] = {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    for name, schema in definitions.items():
        for kind in schema.get("x-kubernetes-group-version-kind", []):
            parts = (kind["kind"], kind["group"].split(".")[0], kind["version"])
            file = directory / ("-".join(part for part in parts if part).lower() + ".json")
            inside = {part: definitions[part] for part in _closure(name, definitions)}
            file.write_text(json.dumps({"$ref": f"{_HERE}{name}", "definitions": inside}))
    return str(directory / LOCATION)


def _closure(name: str, definitions: Schema) -> set[str]:
    """The definitions that one of them needs, itself included."""
    found, open_ends = set(), [name]
    while open_ends:
        at = open_ends.pop()
        if at not in found:
            found.add(at)
            open_ends += [ref.removeprefix(_HERE) for ref in _references(definitions[at])]
    return found


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for inside in schema.values():
            yield from _references(inside)


def _strict(told: Schema) -> Schema:
    """Refuse fields that the API does not have."""
    return {**told, "additionalProperties": False} if "properties" in told else told
