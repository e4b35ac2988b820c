"""A profile that cannot be injected: every problem at once, by field or line, with what would be valid."""

import pytest

from backupsync.inject import ProfileError, load_profile, parse_profile


def problems(text: str) -> list[str]:
    with pytest.raises(ProfileError) as caught:
        parse_profile(text, "p.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_every_problem_is_named_at_once():
    found = problems("""
    seed: -1
    stepSecond: 0.1
    resource: Gpu
    rules:
      - {kind: Gumbell, loc: 1, scale: 1}
      - {kind: Gumbel, loc: 1, scale: 0}
      - {factor: 2}
      - {kind: Persistent, factor: 2, ranks: [-1]}
      - {kind: Persistent, factors: 2}
    """)
    assert found == [
        "seed = -1: must be greater than or equal to 0",
        "resource = 'Gpu': must be 'Sleep' or 'Cpu'",
        "rules[0].kind = 'Gumbell': is no kind; did you mean Gumbel?",
        "rules[1].scale = 0: must be greater than 0",
        "rules[2].kind: is required",
        "rules[3].ranks[0] = -1: must be greater than or equal to 0",
        "rules[4].factor: is required: Factor of every step.",
        "rules[4].factors = 2: is not a field; did you mean factor?",
        "stepSecond = 0.1: is not a field; did you mean stepSeconds?",
    ]


def test_a_kind_like_no_other_lists_what_there_is():
    (found,) = problems("rules: [{kind: Xyz}]")
    assert "rules[0].kind = 'Xyz': is no kind; valid here: Normal, LogNormal, Gumbel" in found


def test_step_time_and_recording_exclude_each_other():
    assert problems("{stepSeconds: 1, recorded: {path: a.csv}}") == [
        "document: set stepSeconds or recorded, not both: each says how long a step takes"
    ]


def test_a_pause_must_not_be_longer_at_least_than_at_most():
    (found,) = problems("rules: [{kind: Pause, every: 5, minimumSeconds: 2, maximumSeconds: 1}]")
    assert found == "rules[0]: maximumSeconds 1 must not be below minimumSeconds 2"


def test_a_profile_that_is_no_mapping_or_is_absent_is_refused(tmp_path):
    assert problems("- 1")[0].startswith("document: must be a mapping with")
    with pytest.raises(ProfileError, match=r"absent\.yaml: file = .*cannot be read"):
        load_profile(tmp_path / "absent.yaml")


@pytest.fixture
def record(tmp_path):
    def load(name: str, text: str):
        (tmp_path / name).write_text(text)
        (tmp_path / "p.yaml").write_text(f"recorded: {{path: {name}, scale: 2}}")
        return load_profile(tmp_path / "p.yaml")

    return load


def test_csv_and_jsonl_say_the_same(record):
    csv = record("t.csv", "rank,seconds,iteration,note\n0,0.5,0,x\n1,0.25,0,\n0,0.75,2,\n")
    jsonl = record(
        "t.jsonl",
        '{"iteration": 0, "rank": 0, "seconds": 0.5}\n\n{"iteration": 0, "rank": 1, "seconds": 0.25}\n'
        '{"iteration": 2, "rank": 0, "seconds": 0.75, "host": "a"}\n',
    )
    assert csv.recorded.times == jsonl.recorded.times == {0: [0.5, None, 0.75], 1: [0.25]}
    assert csv.base_seconds(0, 0) == 1.0, "times are scaled"
    assert csv.base_seconds(0, 3) == 1.0, "the recording begins again after its longest rank"
    assert csv.base_seconds(0, 1) == 1.5, "a step that was not recorded takes the rank's (upper) median"
    assert csv.base_seconds(2, 0) is None


def test_every_bad_line_of_a_recording_is_named(record):
    with pytest.raises(ProfileError) as caught:
        record(
            "t.csv",
            "iteration,rank,seconds\n0,0,abc\n1,-1,1\n1.5,0,1\n2,0,\n3,0,inf\n4,0,0\n5,0,1\n5,0,2\n9999999,0,1\n",
        )
    assert [str(problem) for problem in caught.value.problems] == [
        "line 2 = seconds 'abc': must be a finite number above 0",
        "line 3 = rank '-1': must be a whole number from 0",
        "line 4 = iteration '1.5': must be a whole number from 0 to 999999",
        "line 5: lacks seconds",
        "line 6 = seconds 'inf': must be a finite number above 0",
        "line 7 = seconds '0': must be a finite number above 0",
        "line 9 = iteration 5, rank 0: is recorded twice",
        "line 10 = iteration '9999999': must be a whole number from 0 to 999999",
    ]


def test_a_jsonl_line_that_is_no_object_is_named(record):
    with pytest.raises(ProfileError) as caught:
        record("t.jsonl", '{"iteration": true, "rank": 0, "seconds": true}\n[1]\nnonsense\n')
    assert [problem.field for problem in caught.value.problems] == ["line 1", "line 1", "line 2", "line 3"]


@pytest.mark.parametrize("text", ["", "iteration,rank,seconds\n"])
def test_an_empty_recording_is_refused(record, text):
    with pytest.raises(ProfileError, match=r"recorded\.path = .*holds no rows"):
        record("t.csv", text)


def test_a_recording_without_the_columns_says_which_it_lacks(record):
    with pytest.raises(ProfileError, match="line 2: lacks rank, seconds"):
        record("t.csv", "iteration,worker\n0,1\n")


def test_a_recording_that_is_missing_or_no_text_is_refused(record, tmp_path):
    record("t.csv", "iteration,rank,seconds\n0,0,1\n")
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError, match="cannot be read"):
        load_profile(tmp_path / "p.yaml")
    (tmp_path / "t.csv").unlink()
    with pytest.raises(ProfileError, match="cannot be read"):
        load_profile(tmp_path / "p.yaml")


def test_a_bad_recording_does_not_list_a_thousand_lines(record):
    with pytest.raises(ProfileError) as caught:
        record("t.csv", "iteration,rank,seconds\n" + "0,0,x\n" * 1000)
    assert len(caught.value.problems) <= 22
