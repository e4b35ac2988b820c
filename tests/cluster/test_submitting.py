"""Submitting a manifest: what is packed, what is sent in which order, and what stops it."""

import base64

import pytest
from cluster_objects import JOB, JOBS, job_object
from fake_kubernetes import status

from backupsync.cluster import Conflict, Forbidden, Invalid
from backupsync.cluster import program as program_module
from backupsync.cluster.program import (
    config_map,
    find_program,
    keys_of,
    mounts_program,
    read_files,
    with_program,
)
from backupsync.cluster.submission import read_submission
from backupsync.errors import BackupSyncError
from backupsync.spec import ManifestError, ProgramSpec

MANIFEST = """
apiVersion: backupsync.dev/v1alpha1
kind: BackupSyncJob
metadata: {name: digits}
spec:
  program: {entrypoint: "digits:Digits"}
  aggregation: {workers: 2, backupWorkers: 1}
  training: {iterations: 20, batchSize: 8, optimizer: {name: SGD, lr: 0.1}}
"""
OTHER = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {a: b}
---"""
MOUNTED = """
  worker:
    template:
      spec:
        containers: [{name: worker, volumeMounts: [{name: mine, mountPath: /program/}]}]
        volumes: [{name: mine, configMap: {name: settings}}]
"""
CONFIG_MAPS = "/api/v1/namespaces/team/configmaps"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "job.yaml").write_text(MANIFEST)
    (tmp_path / "digits.py").write_text("class Digits: ...\n")
    return tmp_path


def test_a_manifest_is_sent_as_written_with_its_program_beside_it(client, fake, folder):
    job = client.submit(folder / "job.yaml")
    assert (job.name, job.namespace, job.uid, job.state) == ("digits", "team", "uid-digits", "Pending")
    writes = [(r.method, r.path, r.query.get("dryRun")) for r in fake.requests if r.method != "GET"]
    assert writes == [
        ("POST", JOBS, "All"),
        ("POST", CONFIG_MAPS, None),
        ("POST", JOBS, None),
        ("PATCH", f"{CONFIG_MAPS}/digits-program", None),
    ]
    sent = fake.asked("POST", JOBS)[1]
    assert sent.query["fieldValidation"] == "Strict"
    assert "backupsync" not in sent.body["metadata"].get("labels", {})
    assert "runPolicy" not in sent.body["spec"], "defaults are the API server's to fill in"
    program = fake.objects[f"{CONFIG_MAPS}/digits-program"]
    assert program["data"] == {"digits.py": "class Digits: ...\n"}
    [owner] = program["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("BackupSyncJob", "digits", "uid-digits")
    pod = sent.body["spec"]["worker"]["template"]["spec"]
    assert pod["containers"] == [
        {"name": "worker", "volumeMounts": [{"name": "program", "mountPath": "/program", "readOnly": True}]}
    ]
    items = [{"key": "digits.py", "path": "digits.py"}]
    assert pod["volumes"] == [{"name": "program", "configMap": {"name": "digits-program", "items": items}}]


def test_nothing_is_created_when_the_api_server_refuses_the_job(client, fake, folder):
    causes = [{"field": "spec.aggregation", "message": "too many"}]
    fake.refusals.append(("POST", JOBS, 422, status(422, "Invalid", "no", causes)))
    with pytest.raises(Invalid, match=r"spec.aggregation: too many"):
        client.submit(folder / "job.yaml")
    assert fake.objects == {}
    assert len(fake.requests) == 1


def test_a_name_that_is_taken_leaves_the_running_jobs_program_alone(client, fake, folder):
    fake.put(JOB, job_object("Running"))
    with pytest.raises(Conflict, match=r"job digits in namespace team: exists already; delete it first"):
        client.submit(folder / "job.yaml")
    assert f"{CONFIG_MAPS}/digits-program" not in fake.objects


def test_a_program_that_an_earlier_job_left_is_replaced_not_written_over(client, fake, folder):
    client.submit(folder / "job.yaml")
    fake.remove(JOB)
    path = f"{CONFIG_MAPS}/digits-program"
    fake.put(path, fake.objects[path] | {"metadata": fake.objects[path]["metadata"] | {"uid": "old"}})
    (folder / "digits.py").write_text("class Digits: new = True\n")
    client.submit(folder / "job.yaml")
    [deletion] = fake.asked("DELETE")
    assert (deletion.path, deletion.body) == (path, {"preconditions": {"uid": "old"}})
    assert fake.objects[path]["data"] == {"digits.py": "class Digits: new = True\n"}


def test_a_config_map_that_submit_did_not_make_is_left_alone(client, fake, folder):
    fake.put(f"{CONFIG_MAPS}/digits-program", {"data": {"mine": "1"}})
    with pytest.raises(Conflict, match=r"ConfigMap digits-program: exists in namespace team, and `submit`"):
        client.submit(folder / "job.yaml")
    assert fake.objects[f"{CONFIG_MAPS}/digits-program"]["data"] == {"mine": "1"}
    assert JOB not in fake.objects


def test_a_job_that_cannot_be_created_leaves_no_program(client, fake, folder):
    asked = fake.put

    def refuse_the_second(path, document):
        if path == f"{CONFIG_MAPS}/digits-program":
            fake.refusals.append(("POST", JOBS, 403, status(403, "Forbidden", "quota")))
        return asked(path, document)

    fake.put = refuse_the_second
    with pytest.raises(Forbidden, match="quota"):
        client.submit(folder / "job.yaml")
    assert fake.objects == {}


def test_every_mistake_of_a_manifest_is_found_before_the_cluster_is_asked(client, fake, folder):
    (folder / "job.yaml").write_text(
        MANIFEST.replace("workers: 2", "workers: 0").replace("lr: 0.1", "lr: -1")
    )
    with pytest.raises(ManifestError) as raised:
        client.submit(folder / "job.yaml")
    assert len(raised.value.problems) == 2
    assert fake.requests == []


def test_other_documents_of_the_manifest_are_applied_before_the_job(client, fake, folder):
    (folder / "job.yaml").write_text(OTHER + MANIFEST.rstrip() + MOUNTED)
    client.submit(folder / "job.yaml")
    applied = fake.asked("PATCH")
    assert [r.path for r in applied] == [f"{CONFIG_MAPS}/settings"]
    assert applied[0].content_type == "application/apply-patch+yaml"
    assert applied[0].query == {"fieldManager": "backupsync-cli", "force": "true"}
    assert fake.requests.index(applied[0]) < fake.requests.index(fake.asked("POST", JOBS)[1])


def test_a_document_of_a_kind_that_the_cluster_does_not_know_is_named(client, fake, folder):
    strange = OTHER.replace("ConfigMap", "Oddity")
    for version in ("v1", "odd.example/v1"):
        (folder / "job.yaml").write_text(strange.replace("v1", version) + MANIFEST)
        with pytest.raises(Invalid, match=f"Oddity settings: this cluster knows no Oddity in {version}"):
            client.submit(folder / "job.yaml")


def test_namespaces_that_contradict_each_other_are_refused(folder):
    path = folder / "job.yaml"
    path.write_text(MANIFEST.replace("{name: digits}", "{name: digits, namespace: mine}"))
    assert read_submission(path, None, "usual").job["metadata"]["namespace"] == "mine"
    assert read_submission(path, "mine", "usual").job["metadata"]["namespace"] == "mine"
    with pytest.raises(BackupSyncError, match=r"metadata.namespace is mine, but --namespace says yours"):
        read_submission(path, "yours", "usual")


def test_a_template_that_brings_its_program_is_left_alone(folder):
    path = folder / "job.yaml"
    path.write_text(MANIFEST.rstrip() + MOUNTED)
    submission = read_submission(path, None, "team")
    assert submission.program is None
    assert submission.said == "the worker's image, or the volumes of its template"
    with pytest.raises(BackupSyncError, match=r"the manifest's worker template mounts /program itself"):
        read_submission(path, None, "team", packed=folder / "digits.py")
    path.write_text(MANIFEST)
    assert read_submission(path, None, "team", pack=False).program is None


def test_a_model_that_will_not_outlive_its_pod_is_said_beforehand(folder):
    assert "emptyDir" in read_submission(folder / "job.yaml", None, "team").note
    kept = "\n  checkpoint: {volumeClaimTemplate: {spec: {}}}\n"
    (folder / "job.yaml").write_text(MANIFEST.rstrip() + kept)
    assert read_submission(folder / "job.yaml", None, "team").note == ""


def test_an_own_image_holds_the_program_unless_one_is_named(folder):
    own = "\n  worker: {template: {spec: {containers: [{name: worker, image: mine}]}}}\n"
    (folder / "job.yaml").write_text(MANIFEST.rstrip() + own)
    assert read_submission(folder / "job.yaml", None, "team").program is None
    named = read_submission(folder / "job.yaml", None, "team", packed=folder / "digits.py")
    assert named.program is not None
    assert named.job["spec"]["worker"]["template"]["spec"]["containers"][0]["image"] == "mine"


def test_a_program_that_is_not_beside_the_manifest_is_taken_to_be_in_the_image(folder):
    (folder / "digits.py").unlink()
    submission = read_submission(folder / "job.yaml", None, "team")
    assert submission.program is None
    assert "nothing beside the manifest is digits:Digits" in submission.said


def test_a_packed_program_and_a_config_map_of_its_name_exclude_each_other(folder):
    (folder / "job.yaml").write_text(OTHER.replace("settings", "digits-program") + MANIFEST)
    with pytest.raises(
        BackupSyncError, match=r"holds a ConfigMap digits-program that its workers do not mount"
    ):
        read_submission(folder / "job.yaml", None, "team")


def test_the_program_beside_a_manifest_is_a_module_a_package_or_a_script(folder):
    manifest = folder / "job.yaml"
    assert find_program(manifest, ProgramSpec(entrypoint="digits:Digits")) == folder / "digits.py"
    assert find_program(manifest, ProgramSpec(entrypoint="absent:Digits")) is None
    assert find_program(manifest, ProgramSpec(script="digits.py")) == folder / "digits.py"
    assert find_program(manifest, ProgramSpec(script="../digits.py")) is None
    (folder / "package").mkdir()
    (folder / "package" / "net.py").write_text("")
    assert find_program(manifest, ProgramSpec(entrypoint="package.net:Net")) == folder / "package"


def test_directories_keep_their_paths_and_lose_their_caches(folder):
    inner = folder / "package" / "sub"
    inner.mkdir(parents=True)
    (inner / "a.py").write_text("a")
    (folder / "package" / "__pycache__").mkdir()
    (folder / "package" / "__pycache__" / "x.pyc").write_bytes(b"")
    (folder / "package" / ".secret").write_text("")
    files = read_files(folder / "package", folder)
    assert files == {"package/sub/a.py": b"a"}
    assert keys_of(files) == {"package/sub/a.py": "package_sub_a.py"}


def test_keys_of_a_config_map_are_told_apart():
    keys = keys_of({"a/b.py": b"", "a_b.py": b"", "ä.py": b""})
    assert keys == {"a/b.py": "a_b.py", "a_b.py": "a_b.py.2", "ä.py": "_.py"}


def test_bytes_that_are_no_text_are_packed_too():
    packed = config_map("digits", "team", {"w.bin": b"\xff\x00", "a.py": b"x"})
    assert packed["data"] == {"a.py": "x"}
    assert base64.b64decode(packed["binaryData"]["w.bin"]) == b"\xff\x00"


def test_a_program_larger_than_a_config_map_is_refused_with_its_largest_files(folder, monkeypatch):
    monkeypatch.setattr(program_module, "MAX_BYTES", 100)
    (folder / "data.bin").write_bytes(bytes(90))
    with pytest.raises(BackupSyncError) as raised:
        read_files(folder)
    assert "holds 100 at most; largest: job.yaml (" in str(raised.value)
    assert "data.bin (90 bytes)" in str(raised.value)
    assert "build an image" in str(raised.value)


@pytest.mark.parametrize("name", ["absent.py", "empty"])
def test_a_program_that_is_nothing_is_refused(folder, name):
    (folder / "empty").mkdir()
    with pytest.raises(BackupSyncError, match=f"--program .*{name}: (there is no such|holds no file)"):
        read_files(folder / name)


def test_a_template_keeps_what_it_holds():
    template = {
        "metadata": {"labels": {"a": "b"}},
        "spec": {
            "nodeSelector": {"gpu": "yes"},
            "volumes": [{"name": "data", "emptyDir": {}}],
            "containers": [{"name": "side"}, {"name": "worker", "env": [{"name": "X", "value": "1"}]}],
        },
    }
    job = job_object() | {"spec": job_object()["spec"] | {"worker": {"template": template}}}
    found = with_program(job, {"a.py": b""})["spec"]["worker"]["template"]
    assert found["metadata"] == template["metadata"]
    assert found["spec"]["nodeSelector"] == {"gpu": "yes"}
    assert [v["name"] for v in found["spec"]["volumes"]] == ["data", "program"]
    side, worker = found["spec"]["containers"]
    assert side == {"name": "side"}
    assert worker["env"] == [{"name": "X", "value": "1"}]
    assert "volumeMounts" not in template["spec"]["containers"][1], "the user's manifest is not written into"
    assert mounts_program(found)
    assert not mounts_program(template)
    template["spec"]["volumes"][0]["name"] = "program"
    with pytest.raises(BackupSyncError, match="rename that volume"):
        with_program(job, {"a.py": b""})
