"""A report as a file, and whole runs from simulation to report."""

import json

import pytest

from backupsync.inject import Profile, parse_profile
from backupsync.report import ReportError, from_trace, read_report
from backupsync.trace import TraceWriter, read_trace

DEMO = """
seed: 7
stepSeconds: 0.1
rules:
  - {kind: Gumbel, loc: 0.954, scale: 0.1115}
  - {kind: Persistent, factor: 2.36, ranks: [5]}
"""


@pytest.fixture
def profile() -> Profile:
    return parse_profile(DEMO)


def test_a_report_survives_its_file(simulate, profile, tmp_path):
    report = from_trace(simulate(profile, 4, 2, 60))
    report.write(tmp_path / "deep" / "r.json")
    assert read_report(tmp_path / "deep" / "r.json") == report
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["r.json"], "no temporary file is left"


def test_the_file_has_the_fields_that_scripts_read(simulate, profile, tmp_path):
    from_trace(simulate(profile, 4, 2, 60), "demo").write(tmp_path / "r.json")
    said = json.loads((tmp_path / "r.json").read_text())
    assert said["name"] == "demo" and said["mode"] == "BackupSync" and said["iterations"] == 60
    assert set(said["iteration_seconds"]) == set(said["ideal_seconds"]) == {"p50", "p90", "p99", "mean"}
    assert {"rank", "accepted", "dropped", "refused", "compute_seconds_p50"} <= set(said["workers"][0])
    assert {"examples_per_second", "wall_seconds", "dropped_ratio", "coverage"} <= set(said)
    assert {"loss", "accuracy"} <= set(said["final"])
    assert len(said["curve"][0]) == 3


def test_a_file_that_is_no_report_is_refused(tmp_path):
    path = tmp_path / "r.json"
    with pytest.raises(ReportError, match="cannot be read"):
        read_report(path)
    for text in (b"{", b"{}", b"[]", b"\xff"):
        path.write_bytes(text)
        with pytest.raises(ReportError, match="is no report"):
            read_report(path)


def test_a_place_that_cannot_be_written_is_refused(simulate, profile, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="cannot be written"):
        from_trace(simulate(profile, 2, 0, 3)).write(tmp_path / "file" / "r.json")


def test_a_report_from_a_trace_file_is_the_report_from_its_lines(simulate, profile, tmp_path):
    lines = simulate(profile, 4, 2, 30)
    with TraceWriter(tmp_path / "t.jsonl") as writer:
        for line in lines:
            writer.write(line)
    assert from_trace(read_trace(tmp_path / "t.jsonl")) == from_trace(lines)


def test_backup_workers_beat_waiting_for_all_and_come_near_the_ideal(simulate, profile):
    backup, sync = (from_trace(simulate(profile, n, b, 120)) for n, b in ((4, 2), (6, 0)))
    assert backup.iteration_seconds.p50 < 0.6 * sync.iteration_seconds.p50
    for report in (backup, sync):
        assert report.ideal_seconds.p50 <= report.iteration_seconds.p50 < 1.15 * report.ideal_seconds.p50
    assert backup.workers[5].accepted == 0
    assert backup.workers[5].compute_seconds_p50 > 2 * backup.workers[0].compute_seconds_p50
    assert sync.dropped_ratio == 0 and sync.coverage == 1


def test_the_arrivals_of_sync_are_the_injected_order_statistics(simulate, profile):
    report = from_trace(simulate(profile, 6, 0, 120))
    assert [a.k for a in report.arrivals] == [1, 2, 3, 4, 5, 6]
    for arrival in report.arrivals:
        assert arrival.count == 120
        assert arrival.mean == pytest.approx(arrival.ideal_mean)
        assert arrival.p10 <= arrival.p50 <= arrival.p90


def test_the_report_of_a_long_run_stays_small(simulate, profile, tmp_path):
    from_trace(simulate(profile, 4, 2, 3000)).write(tmp_path / "r.json")
    assert (tmp_path / "r.json").stat().st_size < 200_000
