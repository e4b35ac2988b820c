"""YAML as a manifest may use it: no duplicate keys, no cycles, no bombs, and numbers as YAML 1.2 has them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import yaml

MAX_BYTES: Final = 4 * 1024 * 1024
"""A manifest is far below; so is a profile, whose recorded times stand in a file of their own."""
MAX_NODES: Final = 100_000
"""Nodes once every alias is written out: what stops a document that is small only on paper."""
_TAB: Final = r"found character '\t' that cannot start any token"


class YamlProblem(Exception):  # noqa: N818 -- becomes a Problem of the document
    """Text that is no YAML, or more than is taken."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that takes `1e-4` for a number, as YAML 1.2 does; 1.1 reads a string."""


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def load_yaml(text: str, source: str) -> Any:
    """Return the one document in `text` as plain data; `source` names it. Raises YamlProblem."""
    with _reading(text, source) as loader:
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {})
        return loader.construct_document(node)


def load_documents(text: str, source: str) -> list[Any]:
    """Return every document in `text`, divided by `---`, as plain data; empty ones are left out.

    The limits hold for all of them together. Raises YamlProblem.
    """
    documents: list[Any] = []
    total = 0
    with _reading(text, source) as loader:
        while loader.check_node():
            node = loader.get_node()
            assert node is not None, "check_node() saw one"
            total += _measure(node, {})
            _refuse_many(total)
            documents.append(loader.construct_document(node))
    return [document for document in documents if document is not None]


@contextmanager
def _reading(text: str, source: str) -> Iterator[_Loader]:
    """Give a loader of `text`; what it raises becomes a YamlProblem."""
    if len(text) > MAX_BYTES:
        raise YamlProblem(f"is longer than {MAX_BYTES} characters")
    try:
        loader = _Loader(text)
        loader.name = source
        yield loader
    except yaml.YAMLError as error:
        hint = "\nindent with spaces: YAML takes no tabs" if _TAB in str(error) else ""
        raise YamlProblem(f"is malformed: {error}{hint}") from error
    except RecursionError as error:
        raise YamlProblem("is nested too deeply") from error
    except ValueError as error:  # such as the date 2024-99-99
        raise YamlProblem(f"holds a value that cannot be read: {error}") from error


def _refuse_many(nodes: int) -> None:
    if nodes > MAX_NODES:
        raise YamlProblem(f"holds more than {MAX_NODES} values once its aliases are written out")


def _measure(node: yaml.Node, known: dict[int, int]) -> int:
    """Return the nodes under `node` with aliases written out; 0 marks one that is still being measured."""
    if id(node) in known:
        if not known[id(node)]:
            raise YamlProblem(f"contains itself: an alias in line {node.start_mark.line + 1}")
        return known[id(node)]
    known[id(node)] = 0
    total = 1
    if isinstance(node, yaml.MappingNode):
        _refuse_duplicates(node)
        total += sum(_measure(part, known) for pair in node.value for part in pair)
    elif isinstance(node, yaml.SequenceNode):
        total += sum(_measure(item, known) for item in node.value)
    _refuse_many(total)
    known[id(node)] = total
    return total


def _refuse_duplicates(node: yaml.MappingNode) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        line = key.start_mark.line + 1
        if key.value in lines:
            raise YamlProblem(f"has the key {key.value!r} twice, in lines {lines[key.value]} and {line}")
        lines[key.value] = line
