"""The wire's reference page names every message, field, code and reason, and nothing that is not there."""

import re
from pathlib import Path

from msgspec.structs import fields
from wire_examples import FROM_AGGREGATOR, FROM_WORKER

from backupsync.wire.messages import PROTOCOL, Reason, RefusalCode, TensorEntry, Timing

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "wire.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def documented(title: str) -> dict[str, set[str]]:
    """op -> fields, as the tables of a section have them."""
    found: dict[str, set[str]] = {}
    op = ""
    rows = [line.split("|") for line in section(title).splitlines() if line.startswith("| ")]
    for _, first, second, *_ in rows[1:]:
        op = next(iter(re.findall(r"`([\w-]+)`", first)), op)
        found.setdefault(op, set()).update(re.findall(r"`(\w+)`", second))
    return found


def defined(messages: dict[str, object]) -> dict[str, set[str]]:
    kinds = {type(message) for message in messages.values()}
    return {kind.__struct_config__.tag: {f.name for f in fields(kind)} for kind in kinds}


def test_every_message_of_a_worker_is_documented_field_by_field():
    assert documented("From worker to aggregator") == defined(FROM_WORKER)


def test_every_message_of_the_aggregator_is_documented_field_by_field():
    assert documented("From aggregator to worker") == defined(FROM_AGGREGATOR)


def test_the_inner_structures_are_documented():
    for kind in (TensorEntry, Timing):
        assert all(f"`{field.name}`" in PAGE for field in fields(kind))


def test_every_refusal_code_and_reason_is_documented():
    codes = re.findall(r"^\| `([\w-]+)` \|", section("Refusals of a peer"), re.MULTILINE)
    reasons = re.findall(r"^\| `([\w-]+)` \|", section("Reasons of a gradient"), re.MULTILINE)
    assert codes == [code.value for code in RefusalCode]
    assert sorted(reasons) == sorted(reason.value for reason in Reason)


def test_the_page_is_of_this_version():
    assert f"protocol version {PROTOCOL}" in PAGE
