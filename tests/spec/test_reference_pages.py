"""The reference pages are made from the models; a committed page that differs is out of date."""

from pathlib import Path

import pytest

from backupsync.spec import reference

PAGES = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.parametrize("name", reference.pages())
def test_the_committed_page_is_up_to_date(name):
    committed = (PAGES / name).read_text(encoding="utf-8")
    assert committed == reference.pages()[name], "run `python -m backupsync.spec.reference`"


def test_every_page_is_written(tmp_path):
    said = []
    reference.main(tmp_path, said.append)
    assert {path.name for path in tmp_path.iterdir()} == reference.pages().keys()
    assert len(said) == len(reference.pages())


@pytest.mark.parametrize("name", ["manifest.md", "profile.md"])
def test_every_field_is_described(name):
    rows = [line for line in reference.pages()[name].splitlines() if line.startswith("| `")]
    assert rows
    assert not [row for row in rows if row.replace("\\|", "").split("|")[4].strip() == ""]


@pytest.mark.parametrize(
    "row",
    [
        "| `workers` | whole number, ≥ 1, ≤ 1000 | required | N: gradients averaged in every iteration. |",
        "| `mode` | `BackupSync`, `Sync`, `Async` | `BackupSync` | BackupSync averages the first N",
        "| `aggregation` | mapping | required | Which gradients make an update. |",
        "| `emaDecay` | number, > 0, < 1 | none |",
        "## `spec.training.optimizer.groups`",
    ],
)
def test_the_page_says_type_bounds_default_and_meaning(row):
    assert row in reference.pages()["manifest.md"]


def test_every_kind_of_injection_rule_has_a_section():
    page = reference.pages()["profile.md"]
    for kind in ("Normal", "Gumbel", "BetaBinomialTail", "Persistent", "Sometimes", "Pause", "Kill"):
        assert f"`kind: {kind}`" in page
