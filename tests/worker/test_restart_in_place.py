"""A worker that is a container's process: it replaces itself, answers SIGTERM early, leaves last words."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from backupsync.exits import Exit
from backupsync.termination import VARIABLE
from backupsync.wire.messages import Hello, Ready
from backupsync_worker import restart
from backupsync_worker.signals import STOP

IN_A_POD = {"restart_in_place": "exec"}
UNTIDY = """
import os, subprocess, torch, backupsync_worker

print("before:", os.environ.get("LEFT_BEHIND"), os.getcwd() == "/", flush=True)
os.environ["LEFT_BEHIND"] = "yes"
os.environ["BACKUPSYNC_NODE"] = "elsewhere"
os.chdir("/")
os.set_inheritable(os.open("/etc/passwd", os.O_RDONLY), True)
subprocess.Popen(["sleep", "1000"])
with backupsync_worker.join() as session:
    data = [(torch.tensor([float(i), 1.0]), torch.tensor([float(i)])) for i in range(32)]
    model = session.attach(torch.nn.Linear(2, 1), data)
    for iteration in session:
        x, y = session.batch()
        session.push(((model(x) - y) ** 2).mean())
"""


def test_it_replaces_itself_under_its_pid_and_trains_on(aggregator, spawn_interpreter):
    worker = spawn_interpreter(fields=IN_A_POD)
    assert aggregator.welcome().start == 0
    aggregator.one_iteration(0, 0)
    for start in (1, 2):
        aggregator.dismiss("restart")
        assert aggregator.welcome().start == start
        assert aggregator.one_iteration(start, start)[0].finite
        assert psutil.Process(worker.pid).cmdline()[0] == "backupsync worker line 1"
    aggregator.dismiss()
    assert worker.wait() == Exit.SUCCESS


def test_nothing_of_the_old_life_reaches_the_new_one(aggregator, spawn_interpreter, tmp_path):
    (tmp_path / "train.py").write_text(UNTIDY)
    spec = {
        "program": {"script": "train.py"},
        "training": {
            "iterations": 9,
            "batchSize": 4,
            "loader": {"workers": 1},
            "optimizer": {"name": "SGD", "lr": 0.1},
        },
    }
    worker = spawn_interpreter(spec, IN_A_POD)
    aggregator.welcome()
    aggregator.one_iteration(0, 0)
    process = psutil.Process(worker.pid)
    before = set(process.children(recursive=True))
    assert len(before) >= 3, "a forkserver, a loader and what the program started"
    assert "/etc/passwd" in (file.path for file in process.open_files())
    aggregator.dismiss("restart")
    aggregator.welcome()
    aggregator.receive(Ready)
    assert not [child for child in before if child.is_running()], "killed and reaped: no zombie stays"
    assert worker.output.count("before: None False") == 2
    assert len([file for file in process.open_files() if file.path == "/etc/passwd"]) == 1
    aggregator.dismiss()
    assert worker.wait() == Exit.SUCCESS


def test_starts_are_counted_across_containers_of_one_pod(aggregator, spawn_interpreter, tmp_path):
    fields = IN_A_POD | {"scratch_directory": str(tmp_path)}
    worker = spawn_interpreter(fields=fields)
    assert aggregator.welcome().start == 0
    aggregator.dismiss("restart")
    assert aggregator.welcome().start == 1
    aggregator.dismiss()
    assert worker.wait() == Exit.SUCCESS
    again = spawn_interpreter(fields=fields)
    assert aggregator.welcome().start == 2
    aggregator.dismiss()
    assert again.wait() == Exit.SUCCESS


@pytest.mark.parametrize("content", ["", "x", None])
def test_a_counter_that_cannot_be_used_does_not_keep_a_worker_from_starting(launch_of, tmp_path, content):
    if content is None:
        (tmp_path / "start").mkdir()
    else:
        (tmp_path / "start").write_text(content)
    launch = launch_of(start=3, scratch_directory=str(tmp_path))
    assert restart.counted(launch).start == 3


def test_a_worker_that_is_to_end_does_not_start_again(monkeypatch):
    monkeypatch.setattr(STOP, "requested", True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        assert restart.Origin.here().start_again(1) == Exit.SUCCESS
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_where_it_cannot_replace_itself_the_engine_is_left_to_do_so(aggregator, spawn_interpreter, tmp_path):
    (tmp_path / "moved.py").write_text(
        "import sys\nfrom line import Line as Moved\nsys.executable = '/nowhere/python'\n"
    )
    worker = spawn_interpreter({"program": {"entrypoint": "moved:Moved"}}, IN_A_POD)
    aggregator.welcome()
    aggregator.dismiss("restart")
    assert worker.wait() == Exit.RESTART
    assert "cannot start again in place" in worker.output


def test_sigterm_ends_a_process_that_has_yet_to_load_torch():
    code = "from backupsync import process; process.begin(); print('up', flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout.readline() == "up\n"
        child.terminate()
        assert child.wait(60) == 0


def test_sigterm_in_the_middle_of_a_restart_is_not_lost():
    after = "from backupsync import process; process.begin(); sys.exit('SIGTERM was lost')"
    before = (
        "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM});"
        f"os.kill(os.getpid(), signal.SIGTERM); os.execv(sys.executable, [sys.executable, '-c', {after!r}])"
    )
    assert subprocess.run([sys.executable, "-c", before], check=False).returncode == 0


def test_what_answers_sigterm_is_there_before_torch():
    code = "import sys, backupsync_worker.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("code", [Exit.RESTART, Exit.FENCED])
def test_a_program_cannot_exit_with_a_code_that_is_never_counted(spawn, tmp_path, code):
    (tmp_path / "train.py").write_text(f"import sys; sys.exit({int(code)})")
    worker = spawn({"program": {"script": "train.py"}})
    assert worker.wait() == Exit.CRASHED
    assert f"exited with {int(code)}, a code that it may not use" in worker.output


@pytest.mark.parametrize(
    ("text", "code", "beginning", "end"),
    [
        ("1/0", Exit.CRASHED, "the program raised ZeroDivisionError\nTraceback (", "Error: division by zero"),
        ("pass", Exit.BAD_INPUT, "spec.program.script = 'train.py': never joined", "_worker.join()"),
        ("raise SystemExit('no data')", Exit.CRASHED, "no data", "no data"),
        ("raise SystemExit(3)", 3, "the program exited with 3", "3"),
        ("raise MemoryError", Exit.OUT_OF_MEMORY, "out of memory\nTraceback", "MemoryError"),
    ],
)  # fmt: skip
def test_the_kubelet_is_told_why(spawn_interpreter, tmp_path, text, code, beginning, end):
    (tmp_path / "train.py").write_text(text)
    log = tmp_path / "termination-log"
    log.touch()
    worker = spawn_interpreter({"program": {"script": "train.py"}}, **{VARIABLE: str(log)})
    assert worker.wait() == code
    assert log.read_text().startswith(beginning)
    assert log.read_text().endswith(end)


def test_the_kubelet_is_told_what_the_environment_lacks(spawn_interpreter, tmp_path):
    log = tmp_path / "termination-log"
    log.touch()
    worker = spawn_interpreter(BACKUPSYNC_WORKER=None, **{VARIABLE: str(log)})
    assert worker.wait() == Exit.CONFIGURATION
    assert log.read_text() == worker.output.strip().removeprefix("backupsync worker: ")


def test_a_thread_that_the_program_left_behind_does_not_keep_the_pod(aggregator, spawn_interpreter, tmp_path):
    (tmp_path / "other.py").write_text(
        "import threading, time\nfrom line import Line as Other\n"
        "threading.Thread(target=time.sleep, args=(1000,)).start()\n"
    )
    worker = spawn_interpreter({"program": {"entrypoint": "other:Other"}})
    aggregator.receive(Hello)
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.wait() == Exit.SUCCESS
