"""From text to manifest: what YAML is taken, what is refused, and that every problem is said at once."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from backupsync.spec import BackupSyncJob, ManifestError, load_manifest, parse_manifest, yaml_subset


def refusal(text: str) -> str:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(text, "job.yaml")
    return str(caught.value)


def test_every_problem_is_said_at_once_rules_over_several_fields_included(problems):
    found = problems({
        "metadata.name": "A",
        "spec.program.script": "a.py",
        "spec.program.args": 5,
        "spec.aggregation.mode": "Sync",
        "spec.aggregation.maxRequeues": 0,
        "spec.aggregation.wire": {"dtype": "x", "timeoutSeconds": 1},
        "spec.training.epochs": 3,
        "spec.training.optimizer": {},
        "spec.foo": 1,
    })  # fmt: skip
    assert [problem.split(" = ")[0].split(": ")[0] for problem in found] == [
        "metadata.name",
        "spec.program.args",
        "spec.aggregation.maxRequeues",
        "spec.aggregation.wire.dtype",
        "spec.training.optimizer.lr",
        "spec.foo",
        "spec.program",
        "spec.aggregation.wire",
        "spec.aggregation",
        "spec.training",
    ]


def test_a_rule_is_not_judged_by_a_default_that_stands_in_for_what_is_wrong(problems):
    assert problems({"spec.training.iterations": 0}) == [
        "spec.training.iterations = 0: must be greater than or equal to 1"
    ]
    assert len(problems({"spec.aggregation.wire": {"timeoutSeconds": -1, "heartbeatSeconds": 30}})) == 1
    assert len(problems({"spec.training.batchSize": "a", "spec.training.accumulate": 5})) == 1


def test_the_message_names_the_file_and_each_problem(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("kind: Job\n")
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert [problem.field for problem in caught.value.problems] == ["apiVersion", "kind", "metadata", "spec"]


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for path in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(ManifestError, match="cannot be read"):
            load_manifest(path)
    (tmp_path / "latin.yaml").write_bytes("kind: Ä".encode("latin-1"))
    with pytest.raises(ManifestError, match="cannot be read"):
        load_manifest(tmp_path / "latin.yaml")


@pytest.mark.parametrize("text", ["", "# nothing", "- a", "5", "job"])
def test_a_document_that_is_no_mapping_is_refused(text):
    assert "must be a mapping with apiVersion and kind and metadata and spec" in refusal(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: b: c", "is malformed: mapping values are not allowed here"),
        ("a: [1", "is malformed: while parsing a flow sequence"),
        ("a: !!python/object:os.system {}", "is malformed: could not determine a constructor"),
        ("a: !!python/object/apply:os.system [ls]", "is malformed: could not determine a constructor"),
        ("a: *b", "is malformed: found undefined alias"),
        ("? [1]\n: 2", "is malformed: while constructing a mapping"),
        ("a: \x00", "is malformed: unacceptable character"),
        ("a: 2024-99-99", "holds a value that cannot be read"),
        ("a: &x [*x]", "contains itself: an alias in line 1"),
        ("a: &x {b: *x}", "contains itself"),
        ("[" * 1000, "is nested too deeply"),
    ],
    ids=lambda value: value[:20].encode("unicode_escape").decode(),
)
def test_text_that_is_no_plain_yaml_is_refused(text, message):
    assert "yaml: " in refusal(text)
    assert message in refusal(text)


def test_malformed_yaml_is_placed_in_its_file_and_a_tab_gets_its_remedy():
    with pytest.raises(ManifestError) as caught:
        parse_manifest("a:\n\tb: 1", "job.yaml")
    assert 'in "job.yaml", line 2, column 1' in str(caught.value)
    assert "indent with spaces: YAML takes no tabs" in str(caught.value)


@pytest.mark.parametrize(
    ("field", "given", "remedy"),
    [
        ("lr: 0.1", 'lr: "0.1"', "must be a number; take the quotes away"),
        ("workers: 4", 'workers: "4"', "must be a whole number; take the quotes away"),
        ("workers: 4", "workers: four", "must be a whole number"),
        ("workers: 4", "workers: 4.5", "must be a whole number"),
        ("workers: 4", "workers: true", "must be a whole number"),
        ("name: digits", "name: 7", "must be a string"),
    ],
)
def test_a_number_that_was_quoted_is_told_so(valid, field, given, remedy):
    assert field in valid
    assert refusal(valid.replace(field, given)).rstrip().endswith(remedy)


def test_a_key_given_twice_is_refused_where_it_stands(valid):
    broken = valid.replace("backupWorkers: 2", "workers: 2")
    lines = [number for number, line in enumerate(broken.splitlines(), 1) if "workers:" in line]
    assert f"has the key 'workers' twice, in lines {lines[0]} and {lines[1]}" in refusal(broken)


def test_equal_keys_of_different_mappings_are_no_duplicates(valid):
    assert parse_manifest(valid + "\n").metadata.name == "digits"


def test_an_anchor_and_a_merge_key_are_taken(valid):
    text = valid.replace("spec:\n", "spec:\n  worker: {template: &t {metadata: {labels: {a: b}}}}\n", 1)
    text = text.replace("spec:\n", "spec:\n  aggregator: {template: {<<: *t}}\n", 1)
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if "aggregator:" in line)
    lines[at], lines[at + 1] = lines[at + 1], lines[at]  # the anchor first
    job = parse_manifest("\n".join(lines))
    assert job.spec.aggregator.template == job.spec.worker.template == {"metadata": {"labels": {"a": "b"}}}


def test_a_bomb_of_aliases_is_refused_at_once():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    assert "holds more than 100000 values once its aliases are written out" in refusal("\n".join(lines))


def test_a_text_beyond_the_bound_is_refused_before_it_is_parsed(monkeypatch):
    monkeypatch.setattr(yaml_subset, "MAX_BYTES", 10)
    assert "is longer than 10 characters" in refusal("a: " + "x" * 10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x: .inf", "spec.program.args.x = inf: must be a finite number"),
        ("x: [1, .nan]", "spec.program.args.x[1] = nan: must be a finite number"),
        ("x: 2024-01-01", "spec.program.args.x = datetime.date(2024, 1, 1): is a YAML date: quote it"),
        ("x: !!binary aGk=", "is a YAML bytes: quote it"),
        ("x: !!set {a}", "is a YAML set: quote it"),
        ("yes: 1", "spec.program.args.True: the key True must be a string: quote it"),
        ("1: 1", "spec.program.args.1: the key 1 must be a string: quote it"),
    ],
)
def test_what_json_cannot_carry_to_a_worker_is_refused(text, message, valid):
    broken = valid.replace("entrypoint: digits:Digits", f"entrypoint: digits:Digits\n    args: {{{text}}}")
    assert message in refusal(broken)


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "+1e-4", "0.0001", "1.0e-4", "1.e-4"])
def test_numbers_are_those_of_yaml_1_2(text, valid):
    broken = valid.replace("entrypoint: digits:Digits", f"entrypoint: digits:Digits\n    args: {{x: {text}}}")
    assert parse_manifest(broken).spec.program.args == {"x": 0.0001}


def test_a_value_too_long_to_read_is_shortened(problems):
    (found,) = problems({"metadata.name": "x" * 1000})
    assert len(found) < 200


def test_a_manifest_with_every_default_filled_in_is_read_back_as_the_same(valid):
    job = parse_manifest(valid)
    dumped = job.model_dump(mode="json", by_alias=True)
    assert BackupSyncJob.model_validate(dumped) == job
    assert parse_manifest(yaml.safe_dump(dumped)) == job


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_no_text_raises_anything_but_a_manifest_error(text):
    with pytest.raises(ManifestError):
        parse_manifest(text)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_value_in_any_place_raises_anything_but_a_manifest_error(data):
    job = {
        "apiVersion": "backupsync.dev/v1alpha1",
        "kind": "BackupSyncJob",
        "metadata": {"name": "a", "labels": {}},
        "spec": {
            "program": {"entrypoint": "a:A", "args": {}},
            "aggregation": {"workers": 1, "belowQuorum": {"minimum": 1}, "wire": {"port": 0}},
            "training": {"iterations": 1, "batchSize": 1, "optimizer": {"lr": 1.0, "groups": []}},
        },
    }
    at = job
    while True:
        key = data.draw(st.sampled_from(sorted(at)))
        if not at[key] or not isinstance(at[key], dict) or data.draw(st.booleans()):
            break
        at = at[key]
    at[key] = data.draw(anything)
    try:
        parse_manifest(yaml.safe_dump(job))
    except ManifestError as error:
        assert error.problems
        assert all(problem.field and problem.remedy for problem in error.problems)
