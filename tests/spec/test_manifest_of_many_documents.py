"""One file for `kubectl apply` and for `backupsync run`: the job, and other Kubernetes objects beside it."""

import pytest
import yaml

from backupsync.spec import ManifestError, parse_manifest, parse_manifest_file

CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: program}\ndata: {a.py: 'print(1)'}\n"
SERVICE = "apiVersion: v1\nkind: Service\n"


def refusal(text):
    with pytest.raises(ManifestError) as caught:
        parse_manifest(text, "job.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    "form",
    ["{map}---\n{job}", "{job}---\n{map}", "---\n{map}---\n# nothing\n---\n{job}...\n", "---\n{job}"],
)
def test_the_job_is_found_wherever_it_stands(valid, form):
    assert parse_manifest(form.format(map=CONFIG_MAP, job=valid)) == parse_manifest(valid)


def test_the_other_objects_are_handed_over_in_their_order(valid):
    found = parse_manifest_file(f"{CONFIG_MAP}---\n{valid}---\n{SERVICE}")
    assert found.document == yaml.safe_load(valid)
    assert found.job == parse_manifest(valid)
    assert list(found.others) == [yaml.safe_load(CONFIG_MAP), yaml.safe_load(SERVICE)]


def test_one_document_is_the_job_alone(valid):
    assert parse_manifest_file(valid).others == ()


def test_a_file_without_a_job_says_what_it_holds():
    assert refusal(f"{CONFIG_MAP}---\n{SERVICE}") == (
        "job.yaml: documents: none of them (ConfigMap, Service) is of kind BackupSyncJob"
    )


def test_a_file_with_two_jobs_says_what_to_do(valid):
    assert refusal(f"{valid}---\n{CONFIG_MAP}---\n{valid}") == (
        "job.yaml: documents: 2 are of kind BackupSyncJob; give each a file of its own"
    )


@pytest.mark.parametrize(
    "other", ["- a", "5", "text", "{}", "kind: Service", "apiVersion: v1", "[{kind: x}]"]
)
def test_what_stands_beside_the_job_must_be_a_kubernetes_object(valid, other):
    said = refusal(f"{valid}---\n{other}\n")
    assert said == "job.yaml: document 2: must be a Kubernetes object: a mapping with apiVersion and kind"


def test_problems_of_the_job_are_said_as_ever(valid):
    broken = valid.replace("BackupSyncJob", "BackupSyncJob\nfoo: 1")
    assert refusal(f"{CONFIG_MAP}---\n{broken}") == refusal(broken)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("a: 1\na: 2", "has the key 'a' twice, in lines"),
        ("a: &x [*x]", "contains itself"),
        ("a: [1", "is malformed"),
        ("a: !!python/name:os.system", "is malformed"),
        ("a: *b", "is malformed: found undefined alias"),
        ("a: 2024-99-99", "holds a value that cannot be read"),
    ],
)
def test_every_document_is_read_strictly(valid, other, message):
    for text in (f"{valid}---\n{other}\n", f"{other}\n---\n{valid}"):
        assert message in refusal(text)


def test_an_alias_reaches_into_no_other_document(valid):
    assert "undefined alias" in refusal(f"a: &x 1\n---\nb: *x\n---\n{valid}")


def test_the_limit_holds_for_all_documents_together(valid):
    half = "apiVersion: v1\nkind: x\na: [" + "1," * 60_000 + "]\n"
    assert parse_manifest(f"{half}---\n{valid}") == parse_manifest(valid)
    assert "holds more than 100000 values" in refusal(f"{half}---\n{valid}---\n{half}")
