"""The security page tells the rights that the chart grants, all of them and no others."""

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "concepts" / "security-model.md"


def test_the_table_of_rights_is_the_list_of_rules():
    rules = yaml.safe_load((ROOT / "charts" / "backupsync" / "files" / "rbac-rules.yaml").read_text())
    granted = {
        (group or "core", resource): rule["verbs"]
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    lines = PAGE.read_text().partition("| group | resource |")[2].partition("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]
    assert {(group, resource): verbs.split(", ") for group, resource, verbs, _ in rows} == granted
