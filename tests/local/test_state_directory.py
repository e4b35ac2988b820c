"""The state directory: where it is, what it holds, who may hold it."""

from pathlib import Path

import pytest

from backupsync.errors import BackupSyncError
from backupsync.lifecycle.types import JobStatus
from backupsync.local import ownership
from backupsync.local.files import tail, write_atomically
from backupsync.local.home import JobDirectory, RunFacts, state_root
from backupsync.local.memory import oom_kills


def test_the_state_directory_is_where_the_environment_says():
    home = Path.home() / ".local" / "state" / "backupsync"
    assert state_root(None, {}) == home
    assert state_root(None, {"XDG_STATE_HOME": "/x"}) == Path("/x/backupsync")
    assert state_root(None, {"XDG_STATE_HOME": "/x", "BACKUPSYNC_HOME": "/b"}) == Path("/b")
    assert state_root(Path("/here"), {"BACKUPSYNC_HOME": "/b"}) == Path("/here")


def test_key_and_status_are_readable_by_their_owner_alone(tmp_path):
    home = JobDirectory(tmp_path, "digits")
    home.create()
    home.write_status(JobStatus())
    assert len(bytes.fromhex(home.key_file.read_text())) == 32
    assert {path.stat().st_mode & 0o777 for path in (home.key_file, home.status_file)} == {0o600}


def test_what_is_written_is_read_back(tmp_path):
    home = JobDirectory(tmp_path, "digits")
    home.create()
    facts = RunFacts(uid="u", manifest_source="a.yaml", program_directory=".", checkpoint_directory="c")
    home.write_facts(facts)
    home.write_status(JobStatus(phase="Running", aggregator_attempt=3))
    assert home.exists
    assert home.read_facts() == facts
    assert home.read_status().aggregator_attempt == 3


def test_a_damaged_file_is_named_with_a_remedy(tmp_path):
    home = JobDirectory(tmp_path, "digits")
    home.create()
    home.status_file.write_text("{")
    with pytest.raises(BackupSyncError, match=r"status.json: is damaged: .*--replace"):
        home.read_status()


def test_an_unknown_job_is_answered_with_those_that_are_known(tmp_path):
    known = JobDirectory(tmp_path, "digits")
    known.create()
    known.write_facts(RunFacts(uid="u", manifest_source="a", program_directory=".", checkpoint_directory="c"))
    with pytest.raises(BackupSyncError, match=r"job digts: is not in .*known here: digits"):
        JobDirectory(tmp_path, "digts").require()


def test_one_engine_at_a_time_holds_a_job(tmp_path):
    home = JobDirectory(tmp_path, "digits")
    assert home.lock.holder() is None
    with home.lock.held("digits"):
        assert home.lock.holder() is not None
        with pytest.raises(BackupSyncError, match="is already running"), home.lock.held("digits"):
            pytest.fail("held twice")
    assert home.lock.holder() is None


def test_an_atomic_write_leaves_the_old_content_or_the_new(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "no bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_the_tail_of_a_log_is_whole_lines_even_of_broken_text(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"a\nb\xff\nc\n")
    assert tail(path, 2) == "b\ufffd\nc"
    assert tail(tmp_path / "absent", 2) == ""


def test_a_checkpoint_directory_belongs_to_the_job_that_made_it(tmp_path):
    path = tmp_path / "out"
    ownership.check(path, "digits", replace=False)
    ownership.claim(path, "digits", "uid")
    assert ownership.owner_of(path) == "digits"
    with pytest.raises(BackupSyncError, match="holds the checkpoints of job digits"):
        ownership.check(path, "other", replace=True)
    with pytest.raises(BackupSyncError, match="earlier run of this job"):
        ownership.check(path, "digits", replace=False)
    ownership.check(path, "digits", replace=True)
    ownership.clear(path, "other")
    assert path.exists()
    ownership.clear(path, "digits")
    assert not path.exists()


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_a_checkpoint_path_that_no_file_system_takes_is_refused_by_its_field(tmp_path, name):
    with pytest.raises(BackupSyncError, match=r"spec\.checkpoint\.path = .*cannot be used"):
        ownership.check(tmp_path / name, "digits", replace=False)


def test_files_that_nobody_of_ours_wrote_are_never_deleted(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(BackupSyncError, match="no run of BackupSync put there"):
        ownership.check(tmp_path, "digits", replace=True)
    ownership.clear(tmp_path, "digits")
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize(
    ("membership", "file", "text"),
    [
        ("0::/job", "job/memory.events", "low 0\noom 1\noom_kill 3\n"),
        ("4:memory:/job\n0::/", "memory/job/memory.oom_control", "under_oom 0\noom_kill 3\n"),
    ],
)
def test_the_kernels_count_of_memory_kills_is_read_from_either_cgroup_version(
    tmp_path, membership, file, text
):
    (tmp_path / "self").write_text(membership)
    path = tmp_path / "cgroup" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert oom_kills(tmp_path / "cgroup", tmp_path / "self") == 3
    assert oom_kills(tmp_path / "empty", tmp_path / "self") is None
