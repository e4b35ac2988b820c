"""One aggregator, put together: sockets, disk, tensors and the round; started afresh or from a checkpoint."""

import logging
import platform
from contextlib import ExitStack
from contextlib import closing as closing_
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

import backupsync
from backupsync.control import Desired
from backupsync.errors import BackupSyncError, CheckpointError
from backupsync.launch import AggregatorLaunch, control_token
from backupsync.report.history import History
from backupsync.spec import BackupSyncJob
from backupsync.trace import Header, Resumed, read_trace
from backupsync.wire.auth import derive_key
from backupsync.wire.messages import RefusalCode
from backupsync_aggregator.checkpoints.checkpoint import CheckpointDirectory, Loaded
from backupsync_aggregator.checkpoints.saver import Saver
from backupsync_aggregator.clock import Clock
from backupsync_aggregator.control_server import ControlServer, Desk
from backupsync_aggregator.hands import Hands
from backupsync_aggregator.loop import Loop, Parts, desire_of
from backupsync_aggregator.network.admission import Rejected
from backupsync_aggregator.network.gradients import Gradients
from backupsync_aggregator.network.initial import InitialState
from backupsync_aggregator.network.joining import Given, Identity, Joining
from backupsync_aggregator.network.peers import Peers
from backupsync_aggregator.network.post import Post
from backupsync_aggregator.network.refusing import Refusals, Refuser
from backupsync_aggregator.network.transport import Link
from backupsync_aggregator.round import AnyRound, Origin, ReplayRound, Round
from backupsync_aggregator.round.events import DataLength
from backupsync_aggregator.telemetry.metrics import Metrics
from backupsync_aggregator.telemetry.recorder import Recorder
from backupsync_aggregator.telemetry.status import JobIdentity, Publisher, Sources
from backupsync_aggregator.tensors.model_state import ModelState
from backupsync_aggregator.wake import StopSignal, Wake

_log = logging.getLogger(__name__)


class CannotWrite(BackupSyncError):  # noqa: N818 -- what happened
    """The checkpoint directory cannot be written."""


class Service:
    """One aggregator of a job: `loaded` is the checkpoint it goes on from. Raises CannotBind."""

    def __init__(
        self,
        launch: AggregatorLaunch,
        job: BackupSyncJob,
        directory: CheckpointDirectory | None,
        loaded: Loaded | None,
    ) -> None:
        progress = loaded.progress if loaded else {}
        self._launch, self._spec = launch, job.spec
        self._desired = _desired_of(launch)
        self._clock = Clock(progress.get("started"))
        self._digest: str = progress.get("initial_digest", "")
        self._batches: int | None = progress.get("batches_per_epoch")
        self._round = self._decider(progress)
        self._metrics = Metrics()
        self._recorder = Recorder(Path(launch.trace_file) if launch.trace_file else None, self._metrics)
        self._saver = Saver(directory, job.spec.checkpoint.every_iterations, self._metrics)
        self._saver.progress = self._progress
        self._saver.flush_trace = self._recorder.flush
        self._closing = ExitStack()
        try:
            self._loop = self._put_together(launch.key())
        except BaseException:
            self._closing.close()
            raise
        if loaded is not None:
            self._resume(loaded)

    def _decider(self, progress: dict[str, Any]) -> AnyRound:
        now = self._clock.now()
        if self._launch.replay_file is not None:
            traced = History.read(read_trace(Path(self._launch.replay_file)))
            return ReplayRound(traced.gradients, traced.iterations, now)
        origin = origin_of(progress, self._launch.epoch)
        return Round(self._spec, origin, desire_of(self._desired), now)

    def run(self) -> int:
        """Serve until the end; return the exit code. Raises Fenced, BackupSyncError."""
        self._loop.show()
        if self._launch.http_file is not None:
            self._http.announce(Path(self._launch.http_file), self._launch.epoch)
        self._loop.run()
        if not self._recorder.opened:
            self._recorder.open(self._header())
        return 1 if self._hands.finished and self._hands.finished.outcome == "Failed" else 0

    def close(self) -> None:
        """Close the trace and the sockets, once what is queued has left."""
        self._closing.close()

    def _put_together(self, key: bytes) -> Loop:
        launch, wire = self._launch, self._spec.aggregation.wire
        closing, peers = self._closing, Peers()
        closing.callback(self._recorder.close)
        wake = closing.enter_context(closing_(Wake()))
        stop = closing.enter_context(StopSignal(wake))
        secret = derive_key(key, "curve") if self._spec.security.encryption == "Curve" else None
        link = closing.enter_context(closing_(Link(launch.endpoint, wire, secret)))
        desk = Desk(self._desired, wake.ring)
        self._serve_http(desk, key)
        post = Post(link, launch.epoch, wire.chunk_bytes)
        refusals = Refusals()
        refuser = Refuser(post, self._metrics, refusals)
        self._hands = Hands(peers, post, self._recorder, self._saver, self._clock)
        self._joining = Joining(
            Identity(launch.uid, key, launch.epoch, wire), peers, post, self._hands, refuser
        )
        self._joining.on_given = self._begin
        sources = Sources(link, peers, self._recorder, self._saver, self._hands, self._metrics, refusals)
        publisher = Publisher(JobIdentity(launch.job, launch.uid, launch.epoch), sources, desk)
        parts = Parts(
            link=link,
            wake=wake,
            stop=stop,
            desk=desk,
            clock=self._clock,
            peers=peers,
            post=post,
            hands=self._hands,
            joining=self._joining,
            saver=self._saver,
            refuser=refuser,
            publisher=publisher,
            wire=wire,
        )
        return Loop(parts, self._round, self._desired)

    def _serve_http(self, desk: Desk, key: bytes) -> None:
        launch = self._launch
        server = ControlServer(
            launch.http_host, launch.http_port, control_token(key), desk, self._metrics.render
        )
        self._closing.callback(server.close)
        self._http = server

    def _begin(self, given: Given) -> None:
        """Take the first parameters up: checkpoint 0 is written before iteration 0."""
        model = self._model_from(given.state)
        self._digest, self._batches = given.digest, given.batches_per_epoch
        try:
            self._saver.save_or_raise(0, model)
        except CheckpointError as error:
            raise CannotWrite(str(error)) from error
        self._recorder.open(self._header())
        _log.info("epoch %d begins at iteration 0", self._launch.epoch)
        self._train(model)
        self._joining.enter_all(model.schema)

    def _model_from(self, state: InitialState) -> ModelState:
        """Make the job's model of a worker's. Raises BackupSyncError where the manifest does not fit it."""
        try:
            return ModelState.initial(state.schema, self._spec, state.moving, state.frozen)
        except (BackupSyncError, MemoryError):
            raise
        except Exception as error:
            _log.exception("the worker's model cannot be trained here")
            raise Rejected(RefusalCode.UNSUPPORTED, f"the model cannot be trained: {error}"[:4096]) from error

    def _resume(self, loaded: Loaded) -> None:
        """Go on from a checkpoint."""
        self._saver.resumed_from(loaded.iteration)
        line = Resumed(
            at=self._clock.now(),
            epoch=self._launch.epoch,
            iteration=loaded.iteration,
            next_ticket=self._round.next_ticket,
        )
        self._recorder.open(None if self._recorder.exists else self._header(), line)
        _log.info("epoch %d goes on from iteration %d", self._launch.epoch, loaded.iteration)
        self._train(loaded.model_state)

    def _train(self, model: ModelState) -> None:
        wire = self._spec.aggregation.wire
        self._hands.begin(model, Gradients(model.schema, wire, model.sound_buffers))
        self._loop.feed(DataLength(self._batches))

    def _progress(self) -> dict[str, Any]:
        """What a checkpoint holds beside tensors."""
        return {
            "iteration": self._round.iteration,
            "examples": self._round.examples,
            "next_ticket": self._round.next_ticket,
            "returned": list(self._round.returned),
            "epoch": self._launch.epoch,
            "started": self._clock.started,
            "membership": sorted(list(member) for member in self._joining.desired),
            "batches_per_epoch": self._batches,
            "initial_digest": self._digest,
        }

    def _header(self) -> Header:
        launch = self._launch
        return Header(
            job=launch.job,
            uid=launch.uid,
            manifest=launch.manifest,
            started=self._clock.started,
            initial_digest=self._digest,
            batches_per_epoch=self._batches,
            versions=versions(),
            threads=launch.worker_threads,
            aggregator_threads=launch.threads,
            injection=launch.injection,
        )


def versions() -> dict[str, str]:
    """Return what must match for a replay to compute the same bits."""
    return {
        "backupsync": backupsync.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def origin_of(progress: dict[str, Any], epoch: int) -> Origin:
    """Return where the round starts, from what a checkpoint says ({}: at nothing)."""
    return Origin(
        iteration=progress.get("iteration", 0),
        examples=progress.get("examples", 0),
        next_ticket=progress.get("next_ticket", 0),
        returned=tuple(progress.get("returned", ())),
        epoch=epoch,
    )


def _desired_of(launch: AggregatorLaunch) -> Desired:
    try:
        return msgspec.convert(launch.desired, Desired)
    except msgspec.ValidationError as error:
        raise BackupSyncError(f"the desired state given to the aggregator is not valid: {error}") from error
