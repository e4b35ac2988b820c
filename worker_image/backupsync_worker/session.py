"""The worker's session: `join`, `attach`, the loop, `batch`, `push`, `log`. Program is written on top of it.

with backupsync_worker.join() as session:
model = session.attach(model)
for iteration in session:                  # the newest parameters are in `model`
session.push(loss(model, session.batch(dataset)))
session.log(accuracy=...)
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, NamedTuple, Self

from torch import Tensor, nn

from backupsync.errors import ProgramError
from backupsync.exits import Exit
from backupsync.launch import WorkerLaunch, from_environment
from backupsync.spec import BackupSyncJob
from backupsync_worker.connection.link import ConnectionLost
from backupsync_worker.connection.membership import Membership, Model
from backupsync_worker.data.batches import EndOfData
from backupsync_worker.evaluation import MAX_METRICS, Evaluator, numbers
from backupsync_worker.metrics import MetricsServer, WorkerMetrics
from backupsync_worker.signals import STOP, Stop, Stopped
from backupsync_worker.tensors.compute import autocasting
from backupsync_worker.tensors.device import resolve_device
from backupsync_worker.tensors.flat_model import FlatModel
from backupsync_worker.tensors.seeding import seed_everything
from backupsync_worker.turns import Turns
from backupsync_worker.work import Work


class Iteration(NamedTuple):
    """What one pass of the loop computes: one micro-batch of one ticket."""

    iteration: int
    """Number of the update that this gradient is for, from 0; its parameters are in the model."""
    ticket: int
    """The mini-batch and every random number are a function of the job's seed and this."""
    micro_batch: int = 0
    """Which of the `accumulate` micro-batches of the mini-batch, from 0."""


class Session:
    """One worker's part in a job. Made by `join()`; a context manager; iterate over it to train.

    The loop ends when the job does, or when this worker is to leave; `exit_code` then says how.
    """

    def __init__(self, launch: WorkerLaunch, stop: Stop = STOP) -> None:
        self._launch = launch
        self._spec = BackupSyncJob.model_validate(launch.manifest).spec
        self._metrics = WorkerMetrics()
        self._server = (
            MetricsServer(self._metrics, launch.metrics_port, launch.metrics_file)
            if launch.metrics_port is not None
            else None
        )
        try:
            self._member = Membership(launch, self._spec, self._metrics, stop)
        except BaseException:
            self._close_server()
            raise
        self._turns: Turns | None = None
        self._flat: FlatModel | None = None
        self._work: Work | None = None
        self._autocast: AbstractContextManager[Any] | None = None
        self._logged: dict[str, float] = {}
        self.closed = False

    # ---- what a program calls ----------------------------------------------------------------------------

    @property
    def exit_code(self) -> Exit | None:
        """How the process should end; None while the job goes on."""
        return None if self._turns is None else self._turns.exit_code

    @property
    def args(self) -> dict[str, Any]:
        """`spec.program.args` of the manifest."""
        return dict(self._spec.program.args)

    @property
    def seed(self) -> int:
        """`spec.training.seed` of the manifest."""
        return self._spec.training.seed

    @property
    def rank(self) -> int:
        """Rank of this worker: for messages and file names. The data is no function of it."""
        return self._launch.rank

    def attach(
        self,
        model: nn.Module,
        dataset: Any = None,
        evaluate: Callable[[nn.Module], Mapping[str, Any]] | None = None,
        collate: Callable[[list[Any]], Any] | None = None,
    ) -> nn.Module:
        """Move `model` to the job's device, join the job with it, and return it.

        `evaluate` maps a copy of the model to named numbers. A job that counts epochs needs `dataset` here;
        otherwise it may come with `batch`. Raises ProgramError for a model that cannot be trained here, and
        errors.Refused when the aggregator will not have this worker.
        """
        if self._turns is not None:
            raise ProgramError("attach() was called twice: one session trains one model")
        training, wire = self._spec.training, self._spec.aggregation.wire
        if dataset is None and training.epochs is not None:
            raise ProgramError(
                f"spec.training.epochs = {training.epochs}: needs the length of the data; "
                "pass the dataset to attach()"
            )
        device = resolve_device(training.device)
        if not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
            model = model.to(device)  # what has no memory cannot be moved: FlatModel says which tensor it is
        self._flat = flat = FlatModel(model, wire.dtype, wire.chunk_bytes)
        evaluator = Evaluator(model, evaluate, self._spec) if evaluate is not None else None
        self._turns = turns = Turns(self._launch, self._spec, self._member, flat, evaluator, collate)
        if dataset is not None:
            turns.use(dataset)
        try:
            self._member.join(Model(flat.schema, flat.initial, lambda: turns.batches_per_epoch))
        except Stopped:
            turns.stop()
            raise SystemExit(Exit.SUCCESS) from None
        return model

    def __iter__(self) -> Iterator[Iteration]:
        """Yield one Iteration for every micro-batch to compute, with its parameters in the model."""
        if self._turns is None:
            raise ProgramError("the loop began before attach(model): call it first")
        while (work := self._turns.next()) is not None:
            yield from self._micro_batches(work)

    def batch(self, dataset: Any = None) -> Any:
        """Return the micro-batch of this pass of the loop, on the job's device.

        `dataset` may be left out where attach() had it. Raises ProgramError when called too often.
        """
        work = self._current("batch")
        assert self._turns is not None
        try:
            self._turns.fetch(work, dataset)
        except EndOfData as error:
            raise ProgramError("batch(): the data set is empty; check what it reads") from error
        return work.take()

    def push(self, loss: Tensor) -> None:
        """Run backward of the micro-batch's mean `loss` and send the gradient, chunk by chunk.

        With accumulate > 1 the gradient leaves with the last micro-batch. Returns early, having dropped what
        there was, once the gradient can only come late. Raises ProgramError for a loss without gradient.
        """
        work = self._current("push")
        if work.over:
            return
        self._autocast_off()
        if work.push(loss, self._logged):
            self._logged = {}
        if work.over and self._member.joined:
            try:
                self._member.ready(at_once=True)
            except ConnectionLost as error:
                self._member.lose(error)

    def log(self, **metrics: Any) -> None:
        """Report numbers: into the trace's neighbours report and status, and into /metrics.

        They travel with the next gradient that is whole; a later value of a name replaces an earlier one.
        Raises ProgramError for what is no number, and for more than 64 names.
        """
        self._logged.update(numbers("log()", metrics))
        if len(self._logged) > MAX_METRICS:
            raise ProgramError(f"log(): {len(self._logged)} names since the last gradient, at most 64 travel")
        for name, value in metrics.items():
            self._metrics.logged(name, float(value))

    def close(self, reason: str = "the program ended") -> None:
        """Say goodbye and let go of the connection. Does nothing the second time."""
        if not self.closed:
            self.closed = True
            self._autocast_off()
            if self._turns is not None:
                self._turns.close()
            self._member.close(reason)
            self._close_server()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        crashed = error is not None and not isinstance(error, SystemExit | Stopped)
        self.close(f"{type(error).__name__}: {error}" if crashed else "the program ended")

    # ---- behind the loop -----------------------------------------------------------------------------------

    def _current(self, call: str) -> Work:
        if self._work is None:
            raise ProgramError(f"{call}() was called outside the loop `for iteration in session`")
        return self._work

    def _micro_batches(self, work: Work) -> Iterator[Iteration]:
        assert self._flat is not None
        self._work = work
        try:
            while not work.over:
                before = work.pushed
                self._autocast = autocasting(self._spec.training.autocast, self._flat.device)
                self._autocast.__enter__()
                yield Iteration(work.assign.iteration, work.assign.ticket, before)
                self._autocast_off()
                if not work.over and work.pushed == before:
                    raise ProgramError("a pass of the loop ended without session.push(loss)")
        finally:
            self._autocast_off()
            self._work = None

    def _autocast_off(self) -> None:
        """Leave autocast: backward runs without it."""
        if self._autocast is not None:
            context, self._autocast = self._autocast, None
            context.__exit__(None, None, None)

    def _close_server(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None


_sessions: list[Session] = []


def join(launch: WorkerLaunch | None = None) -> Session:
    """Begin this process's part in the job it was started for; seeds every random number for `model()`.

    `launch` defaults to what the process's environment says. Raises BackupSyncError when nobody started it,
    and ProgramError when it has joined before.
    """
    if _sessions:
        raise ProgramError("join() was called twice: a process is one worker, and keeps one session")
    session = Session(from_environment(WorkerLaunch) if launch is None else launch)
    _sessions.append(session)
    seed_everything(session.seed, "init")
    return session


def current() -> Session | None:
    """Return the session that `join` made in this process, if it did."""
    return _sessions[0] if _sessions else None
