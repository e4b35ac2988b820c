"""Where the aggregator listens, how it is protected, and how it says that it cannot."""

import socket
import subprocess
import sys

import pytest

from backupsync.wire import messages as wire
from backupsync_aggregator.control_server import ControlServer, Desk
from backupsync_aggregator.network.transport import CannotBind, Link


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_tcp_works_by_address_and_by_name(start, join, host):
    aggregator = start(endpoint=f"tcp://{host}:{free_port()}")
    peers = [join(aggregator, rank) for rank in range(2)]
    for peer, assign in [(p, p.assigned()) for p in peers]:
        assert peer.answer(assign).outcome is wire.Outcome.ACCEPTED


def test_a_port_that_is_taken_is_a_matter_of_configuration(start, capfd):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert start(endpoint=f"tcp://127.0.0.1:{port}").exit_code() == 78
        assert start(http_port=port).exit_code() == 78
    said = capfd.readouterr().err
    assert f"127.0.0.1:{port}" in said
    assert "choose another port" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "endpoint", ["nonsense", "tcp://127.0.0.1", "tcp://no-such-host.invalid:7000", "udp://127.0.0.1:7000"]
)
def test_an_endpoint_that_is_none_is_a_matter_of_configuration(start, endpoint):
    assert start(endpoint=endpoint).exit_code() == 78


def test_the_socket_file_of_a_killed_predecessor_is_no_hindrance(start, join, tmp_path):
    stale = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(stale))
    assert stale.exists()
    join(start(endpoint=f"ipc://{stale}"), 0)


def test_the_folder_of_an_ipc_socket_is_made_for_this_user_alone(start, join, tmp_path):
    join(start(endpoint=f"ipc://{tmp_path}/run/socket"), 0)
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700


def test_the_checkpoints_of_another_job_are_neither_gone_on_from_nor_written_over(start, tmp_path, capfd):
    out = tmp_path / "out"
    start(checkpoint_directory=str(out), epoch=2).stop()
    before = sorted(out.rglob("*"))
    for epoch in (1, 3):
        assert start(checkpoint_directory=str(out), epoch=epoch, uid="a-later-job").exit_code() == 73
    assert "holds the checkpoints of another job" in capfd.readouterr().err
    assert sorted(out.rglob("*")) == before
    assert start(checkpoint_directory=str(out), epoch=2).exit_code() == 76, (
        "the job itself is fenced, as ever"
    )


def test_a_key_that_cannot_be_read_is_bad_input(start, tmp_path):
    assert start(key_file=str(tmp_path / "nonesuch")).exit_code() == 65


def test_a_manifest_that_is_none_is_bad_input(start):
    assert start(manifest={"kind": "Pod"}).exit_code() == 65


def test_a_trace_that_cannot_be_written_is_bad_input(start, join, tmp_path):
    (tmp_path / "file").write_text("")
    aggregator = start(trace_file=str(tmp_path / "file" / "trace.jsonl"))
    join(aggregator, 0)
    assert aggregator.exit_code() == 65


def test_a_process_that_nobody_told_who_it_is_says_so():
    run = subprocess.run(
        [sys.executable, "-m", "backupsync_aggregator"], capture_output=True, text=True, check=False, env={}
    )
    assert run.returncode == 78
    assert "BACKUPSYNC_AGGREGATOR" in run.stderr


def test_with_curve_every_message_is_encrypted_and_training_works(start, join):
    aggregator = start({"security": {"encryption": "Curve"}})
    peers = [join(aggregator, rank, curve=True) for rank in range(2)]
    for peer, assign in [(p, p.assigned()) for p in peers]:
        assert peer.answer(assign).outcome is wire.Outcome.ACCEPTED


def test_with_curve_a_peer_without_encryption_is_not_heard(start, join):
    aggregator = start({"security": {"encryption": "Curve"}})
    plain = join(aggregator, 0, joined=False)
    plain.send(plain.hello)
    encrypted = join(aggregator, 1, curve=True)
    assert encrypted.epoch == 1
    assert plain.quiet()


def test_a_link_that_cannot_be_bound_leaves_nothing_open(small_wire):
    with pytest.raises(CannotBind, match="must be tcp"):
        Link("http://127.0.0.1:80", small_wire, None)


def test_an_http_address_of_another_host_is_refused(desired_state):
    with pytest.raises(CannotBind, match=r"192\.0\.2\.1:80"):
        ControlServer("192.0.2.1", 80, "token", Desk(desired_state(), lambda: None), bytes)
