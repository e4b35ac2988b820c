"""The engine's line to the aggregator, against a scripted one."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest

from backupsync.control import AggregatorStatus, Desired
from backupsync.local.client import AggregatorClient, Poller, UnreachableError, read_port


class Scripted:
    """An aggregator's HTTP side that applies desired states after having refused some."""

    def __init__(self, epoch=1, refusals=0):
        self.epoch, self.refusals, self.applied, self.tokens = epoch, refusals, (0, 0), []
        self.body = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                status = AggregatorStatus(
                    job="j", uid="u", epoch=outer.epoch, phase="Training", applied=outer.applied
                )
                self._answer(200, outer.body or msgspec.json.encode(status))

            def do_POST(self):
                outer.tokens.append(self.headers["Authorization"])
                document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if outer.refusals:
                    outer.refusals -= 1
                    return self._answer(503, b"busy")
                order = (document["term"], document["generation"])
                if order < outer.applied:
                    return self._answer(409, b"{}")
                outer.applied = order
                return self._answer(200, b"{}")

            def _answer(self, code, body):
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def scripted():
    made = []

    def make(**options):
        made.append(Scripted(**options))
        return made[-1]

    yield make
    for one in made:
        one.server.shutdown()
        one.server.server_close()


@pytest.fixture
def poller(tmp_path):
    made = []

    def make(port, epoch=1, written=1):
        (tmp_path / "http.json").write_text(json.dumps({"port": port, "epoch": written}))
        made.append(Poller(tmp_path / "http.json", epoch, "secret", lambda: None))
        return made[-1]

    yield make
    for one in made:
        one.close()


def desired(generation):
    return Desired(term=0, generation=generation, members=(), workers=1, backup_workers=0)


def eventually(predicate, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not predicate():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


def test_the_newest_answer_is_kept(scripted, poller):
    polled = poller(scripted().port)
    eventually(lambda: polled.latest is not None)
    assert polled.latest.phase == "Training"


def test_a_desired_state_is_sent_until_it_is_applied_with_the_control_token(scripted, poller):
    aggregator = scripted(refusals=2)
    polled = poller(aggregator.port)
    polled.tell(desired(3))
    eventually(lambda: polled.latest is not None and polled.latest.applied == (0, 3))
    assert set(aggregator.tokens) == {"Bearer secret"}
    assert len(aggregator.tokens) >= 3


def test_an_aggregator_whose_port_file_is_gone_is_spoken_with_all_the_same(scripted, poller, tmp_path):
    polled = poller(scripted().port)
    eventually(lambda: polled.latest is not None)
    (tmp_path / "http.json").unlink()
    polled.tell(desired(3))
    eventually(lambda: polled.latest.applied == (0, 3))


def test_an_aggregator_of_another_epoch_has_nothing_to_say(scripted, poller):
    stale = scripted(epoch=1)
    polled = poller(stale.port, epoch=2, written=2)
    stale_calls = poller(stale.port, epoch=1, written=1)
    eventually(lambda: stale_calls.latest is not None)
    assert polled.latest is None


def test_a_lower_desired_state_is_refused_not_an_error(scripted):
    aggregator = scripted()
    client = AggregatorClient(aggregator.port, "secret")
    assert client.control(desired(5))
    assert not client.control(desired(4))


def test_an_answer_that_is_no_status_and_a_silent_port_are_unreachable(scripted):
    aggregator = scripted()
    aggregator.body = b"{}"
    with pytest.raises(UnreachableError, match="is no status"):
        AggregatorClient(aggregator.port, "secret").status()
    with pytest.raises(UnreachableError):
        AggregatorClient(1, "secret").status()


def test_a_port_file_of_another_epoch_or_half_written_holds_no_port(tmp_path):
    path = tmp_path / "http.json"
    assert read_port(path) is None
    path.write_text('{"port": 47')
    assert read_port(path) is None
    path.write_text('{"port": 4711, "epoch": 1}')
    assert read_port(path, 1) == 4711
    assert read_port(path, 2) is None
