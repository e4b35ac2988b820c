"""The troubleshooting page explains every reason that the code can give, and no other.

Reasons are CamelCase words. Every such word in the planner, the operator and the aggregator must be explained
on the page or stand below as a word that is no reason: so a new reason cannot be forgotten.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "troubleshooting.md"
SOURCES = ("backupsync/lifecycle", "operator/backupsync_operator", "aggregator_image/backupsync_aggregator")
SHARED = ("backupsync/control.py", "backupsync/termination.py")
CAMEL = re.compile(r"[A-Z][a-z0-9]+(?:[A-Z][A-Za-z0-9]*)*")
NO_REASONS = {
    # Kinds, statuses and severities.
    *("BackupSyncJob", "Event", "Lease", "Node", "PersistentVolumeClaim", "Pod", "PodDisruptionBudget"),
    *("Secret", "Service", "True", "False", "Unknown", "Normal", "Warning", "DisruptionTarget"),
    *(
        "PodScheduled",
        "Ready",
        "Pending",
        "Failed",
        "Succeeded",
        "Exited",
        "Absent",
        "Live",
        "Lost",
        "Fenced",
    ),
    *("Candidate", "Phase", "DeleteOptions", "Authorization", "Accept", "Background", "BearerToken"),
    # Values of fields.
    *("All", "None", "Never", "Delete", "Fail", "Curve", "Claim", "Template", "Scratch", "Opaque"),
    *("AlwaysAllow", "FallbackToLogsOnError", "IfNotPresent", "OnRootMismatch", "ReadWriteOnce"),
    *("RuntimeDefault", "F16", "F32", "F64", "I8", "I16", "I32", "I64", "U8"),
    # Names of torch's classes and of our own.
    *("ChainedScheduler", "LambdaLR", "MultiplicativeLR", "ReduceLROnPlateau", "SequentialLR", "SparseAdam"),
    *("MasterStore", "ModelState", "Replay"),
    # What a pod's end is told by: shown within a message.
    *("ContainerCreating", "PodInitializing", "ContainerStatusUnknown", "Disrupted", "Evicted", "NodeLost"),
    *("Error", "ErrImagePull"),
    # The API server's answers and what the trace says, which no condition shows.
    *("AlreadyExists", "NoAnswer", "Resized", "Terminated"),
}


@cache
def words() -> dict[str, str]:
    """Every CamelCase word in the code, with a place where it stands."""
    found: dict[str, str] = {}
    paths = (path for source in SOURCES for path in sorted((ROOT / source).rglob("*.py")))
    for path in (*paths, *(ROOT / shared for shared in SHARED)):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        silent = {id(node) for part in _silent(tree) for node in ast.walk(part)}
        texts = (n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str))
        for node in texts:
            if id(node) not in silent and CAMEL.fullmatch(node.value):
                found.setdefault(node.value, f"{path.relative_to(ROOT)}:{node.lineno}")
    return found


def said(kind: str) -> Iterator[tuple[str, str]]:
    """(condition or "Events", reason) of every call that names both."""
    for path in (ROOT / "backupsync/lifecycle").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == kind:
                values = [a.value if isinstance(a, ast.Constant) else None for a in node.args]
                match kind, values:
                    case "condition", [str(type_), _, str(reason), *_]:
                        yield type_, reason
                    case "announce", [_, str(reason), *_]:
                        yield "Events", reason
                    case "fail", [str(reason), *_]:
                        yield "Failed", reason


def sections() -> dict[str, list[str]]:
    """Reasons in the tables of the page, by the heading they stand under."""
    made: dict[str, list[str]] = {}
    heading = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        elif found := re.match(r"\| `(\w+)` \|", line):
            made.setdefault(heading, []).append(found[1])
    return made


def _silent(tree: ast.Module) -> Iterator[ast.AST]:
    """Parts of a module whose words are names, not reasons: annotations, `__all__`."""
    for node in ast.walk(tree):
        match node:
            case ast.Subscript(value=ast.Name(id="Literal")) | ast.Assign(targets=[ast.Name(id="__all__")]):
                yield node


def test_every_reason_in_the_code_is_explained():
    explained = {reason for reasons in sections().values() for reason in reasons}
    missing = {word: place for word, place in words().items() if word not in explained | NO_REASONS}
    assert not missing, "explain it in docs/how-to/troubleshooting.md, or list it as no reason here"


@pytest.mark.parametrize("kind", ["condition", "announce", "fail"])
def test_a_reason_is_explained_under_its_condition(kind):
    pairs = set(said(kind))
    assert pairs
    page = sections()
    assert {(section, reason) for section, reason in pairs if reason not in page[section]} == set()


def test_the_page_explains_no_reason_that_is_never_given():
    known = words()
    ours = {reason for heading, reasons in sections().items() for reason in reasons if "Pods" not in heading}
    assert {reason for reason in ours if reason not in known} == set()


def test_no_word_is_excused_that_is_gone():
    assert NO_REASONS - words().keys() == set()


def test_every_row_says_what_to_do():
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert len(rows) > 60
    for row in rows:
        assert all(cell.strip() for cell in row.strip("|").split(" | ")), row
