"""load_program: found, checked and made, with an error that names field, value and remedy at each step."""

import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import backupsync_worker
from backupsync.errors import ProgramError
from backupsync.spec.job import ProgramSpec
from backupsync_worker.program import Program, load_program, make_dataset, make_model

PROGRAM = """
import torch
from backupsync_worker import Program


class Digits(Program):
    def __init__(self, hidden=8, *, name="x"):
        self.hidden, self.name = hidden, name

    def model(self):
        return torch.nn.Linear(2, self.hidden)

    def dataset(self):
        return [torch.zeros(2)]

    def loss(self, model, batch):
        return model(batch).mean()


class NotReady(Program):
    def model(self):
        return None


class Duck:
    def model(self): ...
    def dataset(self): ...
    def loss(self, model, batch): ...


class Fussy(Digits):
    def __init__(self, hidden):
        if hidden < 0:
            raise ValueError("hidden must not be negative")


class Refusing(Digits):
    def __init__(self):
        from backupsync_worker import ProgramError
        raise ProgramError("digits.csv: download it first")


class Greedy(Digits):
    def __init__(self):
        raise MemoryError


answer = 42
"""

Load = Callable[..., Program]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    monkeypatch.setattr(sys, "path", sys.path.copy())
    before = set(sys.modules)
    (tmp_path / "my_digits.py").write_text(PROGRAM)

    def load(entrypoint: str, source: str | None = None, **args: object) -> Program:
        if source is not None:
            (tmp_path / f"{entrypoint.partition(':')[0]}.py").write_text(source)
        return load_program(ProgramSpec(entrypoint=entrypoint, args=args), tmp_path)

    yield load
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_the_class_is_made_with_the_arguments_of_the_manifest(load):
    program = load("my_digits:Digits", hidden=5, name="y")
    assert isinstance(program, backupsync_worker.Program)
    assert (program.hidden, program.name) == (5, "y")


def test_a_class_with_the_methods_is_a_program_without_subclassing_it(load):
    assert type(load("my_digits:Duck")).__name__ == "Duck"


def test_modules_beside_the_manifest_come_first(load):
    program = load("antigravity:Mine", PROGRAM.replace("Digits", "Mine"))
    assert type(program).__name__ == "Mine"


def test_a_program_imports_its_neighbours(load, tmp_path):
    (tmp_path / "my_helper.py").write_text("SIZE = 3")
    load("my_main:Digits", PROGRAM + "\nfrom my_helper import SIZE\n")


def test_a_script_has_no_program_to_load(tmp_path):
    with pytest.raises(ProgramError, match=r"entrypoint: is not set; 'train.py' is a script"):
        load_program(ProgramSpec(script="train.py"), tmp_path)


# ---- each failing step -----------------------------------------------------------------------------------


def test_an_unknown_module_is_named_with_its_nearest_neighbour(load):
    with pytest.raises(ProgramError) as caught:
        load("my_digit:Digits")
    text = str(caught.value)
    assert text.startswith("spec.program.entrypoint = 'my_digit:Digits': there is no module 'my_digit' in ")
    assert text.endswith("did you mean my_digits?")


def test_an_unknown_module_far_from_all_is_answered_with_what_is_there(load):
    with pytest.raises(ProgramError, match=r"modules there: my_digits$"):
        load("zzz:Digits")


def test_a_missing_dependency_of_the_program_is_not_mistaken_for_the_program(load):
    with pytest.raises(
        ProgramError, match=r"importing needy raised ModuleNotFoundError: .*'no_such_package'"
    ):
        load("needy:X", "import no_such_package")


@pytest.mark.parametrize("source", ["1/0", "def f(:", "raise RuntimeError('x')"])
def test_a_module_that_raises_keeps_its_traceback(load, source):
    with pytest.raises(
        ProgramError, match=r"spec.program.entrypoint = 'broken:X': importing broken raised"
    ) as e:
        load("broken:X", source)
    assert "broken.py" in "".join(traceback.format_exception(e.value))


def test_an_unknown_class_is_answered_with_its_nearest_neighbour(load):
    with pytest.raises(ProgramError, match=r"my_digits has no class Digit; did you mean Digits\?$"):
        load("my_digits:Digit")


def test_an_unknown_class_far_from_all_is_answered_with_the_classes_of_the_module_alone(load):
    with pytest.raises(
        ProgramError, match=r"classes there: Digits, NotReady, Duck, Fussy, Refusing, Greedy$"
    ):
        load("my_digits:Zzz")


def test_a_name_that_is_no_class_is_said_to_be_none(load):
    with pytest.raises(ProgramError, match=r"my_digits has a int, not a class, named answer"):
        load("my_digits:answer")


def test_missing_methods_are_all_named(load):
    with pytest.raises(ProgramError, match=r"NotReady lacks the method\(s\) dataset, loss; a program has"):
        load("my_digits:NotReady")


def test_an_unknown_argument_is_answered_with_its_nearest_neighbour(load):
    with pytest.raises(
        ProgramError, match=r"spec.program.args = {'hiden': 3}: Digits: .*did you mean hidden\?$"
    ):
        load("my_digits:Digits", hiden=3)


def test_a_missing_argument_is_named(load):
    with pytest.raises(ProgramError, match=r"Fussy: missing a required argument: 'hidden'"):
        load("my_digits:Fussy")


def test_a_constructor_that_raises_keeps_its_traceback(load):
    with pytest.raises(ProgramError, match=r"Fussy\(...\) raised ValueError: hidden must not") as caught:
        load("my_digits:Fussy", hidden=-1)
    assert isinstance(caught.value.__cause__, ValueError)
    assert "my_digits.py" in "".join(traceback.format_exception(caught.value))


def test_a_program_may_refuse_in_its_own_words(load):
    with pytest.raises(ProgramError, match=r"^digits.csv: download it first$"):
        load("my_digits:Refusing")


def test_running_out_of_memory_is_no_fault_of_the_program(load):
    with pytest.raises(MemoryError):
        load("my_digits:Greedy")


# ---- the model -------------------------------------------------------------------------------------------


def test_the_initial_model_is_a_function_of_the_seed(load):
    program = load("my_digits:Digits")
    torch.rand(3)
    first, again, other = make_model(program, 1), make_model(program, 1), make_model(program, 2)
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)


def test_a_model_that_is_no_module_is_refused(load):
    with pytest.raises(
        ProgramError, match=r"Duck.model\(\): returned a NoneType, must return a torch.nn.Module"
    ):
        make_model(load("my_digits:Duck"), 1)


def test_the_user_writes_three_methods_and_no_more():
    class Small(Program):
        def model(self):
            return nn.Linear(1, 1)

        def dataset(self):
            return [torch.zeros(1)]

        def loss(self, model, batch):
            return model(batch).mean()

    assert isinstance(make_model(Small(), 1), nn.Linear)


def test_a_program_that_returns_no_data_is_told_which_method_to_mend():
    class Forgetful(Program):
        def model(self):
            return nn.Linear(1, 1)

        def dataset(self):
            pass

        def loss(self, model, batch):
            return model(batch).mean()

    with pytest.raises(ProgramError, match=r"Forgetful\.dataset\(\): returned None; return the"):
        make_dataset(Forgetful())
