"""A worker as a process: both doors, every way to end, and the code it ends with."""

import json
import os
import signal
import urllib.request
from pathlib import Path

import pytest

from backupsync.exits import Exit
from backupsync.wire.messages import Goodbye, Heartbeat, Hello, InitialDone, Outcome, Ready, Verdict

SCRIPT = """
import torch, backupsync_worker

with backupsync_worker.join() as session:
    data = [(torch.tensor([float(i), 1.0]), torch.tensor([float(i)])) for i in range(32)]
    model = session.attach(torch.nn.Linear(session.args["inputs"], 1), data)
    for iteration in session:
        x, y = session.batch()
        session.push(((model(x) - y) ** 2).mean())
        session.log(rank=session.rank)
print("after the loop")
"""


@pytest.fixture
def script(tmp_path):
    def write(text):
        (tmp_path / "train.py").write_text(text)
        return {"program": {"script": "train.py", "args": {"inputs": 2}}}

    return write


@pytest.fixture
def program(tmp_path):
    """A program whose `loss` begins with the given lines."""

    def write(*lines):
        body = [*lines, "return super().loss(model, batch)"]
        (tmp_path / "other.py").write_text(
            "import os, sys, signal\nfrom line import Line\n\n\nclass Other(Line):\n"
            "    def loss(self, model, batch):\n" + "".join(f"        {line}\n" for line in body)
        )
        return {"program": {"entrypoint": "other:Other"}}

    return write


def compute_one(aggregator):
    aggregator.welcome()
    return aggregator.one_iteration(0, 0)


def begin_one(aggregator):
    aggregator.welcome()
    aggregator.receive(Ready)
    aggregator.parameters(0)
    aggregator.assign(0, 0)


def title_of(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()


def test_the_module_can_be_run_by_itself(aggregator, spawn_interpreter):
    worker = spawn_interpreter()
    assert compute_one(aggregator)[0].finite
    assert title_of(worker.pid) == "backupsync worker line 1"
    aggregator.dismiss()
    assert worker.wait() == Exit.SUCCESS


def test_without_a_launch_in_the_environment_the_module_says_who_must_start_it(spawn_interpreter):
    worker = spawn_interpreter(BACKUPSYNC_WORKER=None)
    assert worker.wait() == Exit.CONFIGURATION
    assert "BACKUPSYNC_WORKER is not set" in worker.output
    assert "Traceback" not in worker.output


@pytest.mark.parametrize(
    ("why", "code"),
    [
        ("succeeded", Exit.SUCCESS),
        ("failed", Exit.SUCCESS),
        ("suspended", Exit.SUCCESS),
        ("scaled", Exit.SUCCESS),
        ("restart", Exit.RESTART),
        ("fenced", Exit.FENCED),
    ],
)
def test_the_order_to_leave_decides_the_exit_code(aggregator, spawn, why, code):
    worker = spawn()
    aggregator.welcome()
    aggregator.dismiss(why)
    assert worker.wait() == code


def test_a_script_of_ones_own_trains_by_the_same_calls(aggregator, spawn, script):
    worker = spawn(script(SCRIPT))
    compute_one(aggregator)
    assert aggregator.one_iteration(1, 1)[0].metrics == {"rank": 1.0}
    aggregator.dismiss("restart")
    assert worker.wait() == Exit.RESTART
    assert "after the loop" in worker.output


def test_both_doors_begin_with_the_same_parameters_on_every_rank(aggregator, spawn, script):
    digests = set()
    for spec, rank in ((None, 0), (None, 2), (script(SCRIPT), 1)):
        worker = spawn(spec, rank=rank)
        aggregator.welcome(send_initial=True)
        digests.add(aggregator.receive(InitialDone).digest)
        aggregator.dismiss()
        assert worker.wait() == Exit.SUCCESS
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("print('hello')", Exit.BAD_INPUT, "never joined"),
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit('no data here')", Exit.CRASHED, "no data here"),
        ("import backupsync_worker as b; b.join(); b.join()", Exit.BAD_INPUT, "join() was called twice"),
        ("import backupsync_worker as b; b.join()", Exit.CRASHED, "ended before the job did"),
        ("def f(:", Exit.CRASHED, "SyntaxError"),
        ("raise OSError('disk')", Exit.CRASHED, "OSError: disk"),
    ],
)
def test_a_script_that_goes_wrong_is_told_what_it_did(spawn, script, text, code, said):
    worker = spawn(script(text))
    assert worker.wait() == code
    assert said in worker.output


def test_a_script_that_leaves_its_loop_early_has_not_succeeded(aggregator, spawn, script):
    worker = spawn(script(SCRIPT.replace("session.log(rank=session.rank)", "break")))
    compute_one(aggregator)
    assert worker.wait() == Exit.CRASHED
    assert "ended before the job did" in worker.output


def test_a_script_that_is_not_there_is_bad_input(spawn):
    worker = spawn({"program": {"script": "nowhere.py"}})
    assert worker.wait() == Exit.BAD_INPUT
    assert "spec.program.script = 'nowhere.py': there is no file" in worker.output


def test_a_program_that_raises_shows_its_whole_traceback(aggregator, spawn, program):
    worker = spawn(program("raise KeyError('label')"))
    begin_one(aggregator)
    assert worker.wait() == Exit.CRASHED
    assert "KeyError: 'label'" in worker.output
    assert "other.py" in worker.output
    assert "backupsync_worker" not in worker.output
    assert aggregator.receive(Goodbye, allow_ended=True).reason == "KeyError: 'label'"


@pytest.mark.parametrize(
    "lines",
    [
        "raise MemoryError",
        "raise __import__('torch').OutOfMemoryError('CUDA out of memory')",
        'raise RuntimeError("DefaultCPUAllocator: can\'t allocate memory: you tried to allocate 9 bytes")',
    ],
)
def test_running_out_of_memory_ends_as_the_kernel_would_end_it(aggregator, spawn, program, lines):
    worker = spawn(program(lines))
    begin_one(aggregator)
    assert worker.wait() == Exit.OUT_OF_MEMORY
    assert "out of memory" in worker.output


def test_a_program_that_cannot_be_used_is_told_so_without_a_traceback(aggregator, spawn, program):
    worker = spawn(program("return model(batch[0]).detach().sum()"))
    begin_one(aggregator)
    assert worker.wait() == Exit.BAD_INPUT
    assert "does not depend on a trainable parameter" in worker.output
    assert "Traceback" not in worker.output


def test_a_program_that_cannot_be_found_is_bad_input(spawn):
    worker = spawn({"program": {"entrypoint": "lines:Line"}})
    assert worker.wait() == Exit.BAD_INPUT
    assert "spec.program.entrypoint = 'lines:Line'" in worker.output


def test_an_injected_kill_looks_like_a_real_one(aggregator, spawn):
    rules = [{"kind": "Kill", "ranks": [1], "firstIteration": 3}]
    worker = spawn(attempt=1, injection={"seed": 1, "rules": rules})
    compute_one(aggregator)
    aggregator.receive(Ready)
    aggregator.parameters(3)
    aggregator.assign(3, 9)
    assert worker.wait() == -signal.SIGKILL


def test_sigterm_while_waiting_says_goodbye(aggregator, spawn):
    worker = spawn()
    aggregator.welcome()
    aggregator.receive(Ready)
    os.kill(worker.pid, signal.SIGTERM)
    aggregator.receive(Goodbye, allow_ended=True)
    assert worker.wait() == Exit.SUCCESS


def test_sigterm_before_the_join_ends_the_process(aggregator, spawn):
    worker = spawn()
    aggregator.receive(Hello)
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.wait() == Exit.SUCCESS


def test_a_second_sigterm_ends_a_computation_that_never_ends(aggregator, spawn, program):
    stop_oneself = "os.kill(os.getpid(), signal.SIGTERM)"
    worker = spawn(
        program(f"{stop_oneself}; print('stopping', flush=True); signal.sigwait([signal.SIGUSR1])")
    )
    begin_one(aggregator)
    while "stopping" not in worker.output:
        aggregator.receive(Heartbeat)
    assert worker.exit_code is None
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.wait() == -signal.SIGTERM


def test_a_process_that_the_program_forked_still_ends_by_sigterm(aggregator, spawn, program):
    worker = spawn(
        program(
            "told, tell = os.pipe()",
            "pid = os.fork()",
            "while not pid: os.write(tell, b'x')",
            "os.read(told, 1)",
            "os.kill(pid, signal.SIGTERM)",
            "print('code', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)",
        )
    )
    assert compute_one(aggregator)[0].finite
    assert f"code -{signal.SIGTERM:d}" in worker.output
    aggregator.dismiss()
    assert worker.wait() == Exit.SUCCESS


def test_ctrl_c_is_the_engines_affair(aggregator, spawn):
    worker = spawn()
    aggregator.welcome()
    aggregator.receive(Ready)
    os.kill(worker.pid, signal.SIGINT)
    assert aggregator.one_iteration(0, 0)[0].finite
    aggregator.dismiss()
    assert worker.wait() == Exit.SUCCESS


def test_a_worker_that_was_stopped_and_continued_goes_on(aggregator, spawn):
    spec = {"aggregation": {"workers": 2, "wire": {"heartbeatSeconds": 0.05, "timeoutSeconds": 0.5}}}
    worker = spawn(spec)
    aggregator.welcome()
    aggregator.receive(Ready)
    os.kill(worker.pid, signal.SIGSTOP)
    while aggregator.socket.poll(700):  # silent for longer than the timeout
        aggregator.socket.recv_multipart()
    os.kill(worker.pid, signal.SIGCONT)
    assert aggregator.serve_until_commit(0, 0).finite
    aggregator.dismiss()
    assert worker.wait() == Exit.SUCCESS


def test_the_worker_serves_its_metrics_and_says_where(aggregator, spawn, tmp_path):
    file = tmp_path / "metrics.json"
    worker = spawn(metrics_port=0, metrics_file=str(file))
    compute_one(aggregator)
    aggregator.say(Verdict(0, 0, Outcome.ACCEPTED, 0))
    aggregator.receive(Ready)
    aggregator.receive(Ready)
    port = json.loads(file.read_text())["port"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert 'backupsync_worker_gradients_total{outcome="accepted"} 1.0' in text
    assert "backupsync_worker_compute_duration_seconds_count 1.0" in text
    assert 'backupsync_worker_phase{phase="waiting"} 1.0' in text
    aggregator.dismiss()
    assert worker.wait() == Exit.SUCCESS


def test_a_metrics_port_that_is_taken_is_named(spawn, free_port_taken):
    worker = spawn(metrics_port=free_port_taken, metrics_file="/dev/null")
    assert worker.wait() == Exit.CONFIGURATION
    assert f"metrics port {free_port_taken}: cannot be taken" in worker.output


def test_logs_are_json_when_the_launch_says_so(aggregator, spawn, program):
    worker = spawn(program("raise KeyError('label')"), log_format="json")
    begin_one(aggregator)
    assert worker.wait() == Exit.CRASHED
    lines = [json.loads(line) for line in worker.output.splitlines()]
    assert {(line["job"], line["rank"], line["attempt"], line["role"]) for line in lines} == {
        ("line", 1, 0, "worker")
    }
    assert "KeyError: 'label'" in lines[-1]["traceback"]


def test_loader_processes_end_with_their_worker(aggregator, spawn):
    training = {
        "iterations": 10, "batchSize": 4, "seed": 3, "loader": {"workers": 1},
        "optimizer": {"name": "SGD", "lr": 0.1},
    }  # fmt: skip
    worker = spawn({"training": training})
    compute_one(aggregator)
    aggregator.dismiss()
    assert worker.wait() == Exit.SUCCESS
