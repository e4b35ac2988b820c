"""Without the extra `local` the command says what to install, and shows no traceback."""

import sys

import pytest

from backupsync import cli


@pytest.fixture
def without(monkeypatch):
    """Make a module, and everything of the command line, as if never imported."""

    def forget(module: str) -> None:
        for name in [name for name in sys.modules if name.startswith("backupsync.cli.")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, module, None)

    return forget


@pytest.mark.parametrize("module", ["typer", "rich.console"])
def test_a_missing_extra_is_named_with_its_remedy(without, capsys, module):
    without(module)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 78
    said = capsys.readouterr().err
    assert module in said
    assert "pip install 'backupsync[local]'" in said


def test_a_module_of_the_package_itself_that_is_missing_is_a_fault_and_shown_whole(without):
    without("backupsync.cli.app")
    with pytest.raises(ModuleNotFoundError):
        cli.main()
