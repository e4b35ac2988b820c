"""What happens between two gradients: waiting, loading parameters, reading data, evaluating, leaving."""

import logging
from collections.abc import Callable
from typing import Any

from backupsync.errors import ProgramError, Refused
from backupsync.exits import Exit
from backupsync.launch import WorkerLaunch
from backupsync.spec import JobSpec
from backupsync.wire.frames import Buffer
from backupsync.wire.messages import Abandoned, Assign, Evaluate, Evaluated, Exhausted, Leave
from backupsync_worker.connection.link import ConnectionLost
from backupsync_worker.connection.membership import Membership
from backupsync_worker.data.batches import Batches, EndOfData
from backupsync_worker.evaluation import Evaluator, Interrupted
from backupsync_worker.pacing import Pacer
from backupsync_worker.signals import Stopped
from backupsync_worker.tensors.flat_model import FlatModel
from backupsync_worker.timing import Stopwatch
from backupsync_worker.work import Work

_EXITS = {"restart": Exit.RESTART, "fenced": Exit.FENCED}

_log = logging.getLogger(__name__)


class Turns:
    """Hands out one `Work` after the other, until this worker is done."""

    def __init__(
        self,
        launch: WorkerLaunch,
        spec: JobSpec,
        member: Membership,
        flat: FlatModel,
        evaluator: Evaluator | None,
        collate: Callable[[list[Any]], Any] | None,
    ) -> None:
        self._launch, self._spec, self._member = launch, spec, member
        self._flat, self._evaluator, self._collate = flat, evaluator, collate
        self._pacer = Pacer(launch)
        self._dataset: Any = None
        self._batches: Batches | None = None
        self._loaded = (0, -1)
        self._frozen_of = 0
        self.exit_code: Exit | None = None
        """How the process should end; None while the job goes on."""

    @property
    def batches_per_epoch(self) -> int | None:
        """Mini-batches of one pass over the data, None where it is not known or has no length."""
        return None if self._batches is None else self._batches.batches_per_epoch

    def use(self, dataset: Any) -> None:
        """Read mini-batches from `dataset` from now on."""
        if dataset is self._dataset:
            return
        self.close()
        training, rank = self._spec.training, self._launch.rank
        self._batches = Batches(
            dataset,
            training.batch_size,
            training.seed,
            self._collate,
            training.loader,
            self._flat.device,
            training.accumulate,
            rank,
            max(self._spec.aggregation.total, rank + 1),
        )
        self._dataset = dataset

    def fetch(self, work: Work, dataset: Any = None) -> None:
        """Read the mini-batch of `work`, unless that is done. Raises EndOfData, and what the data raises."""
        if dataset is not None and dataset is not self._dataset:
            self.use(dataset)
            work.batches = None
        if work.batches is not None:
            return
        if self._batches is None:
            raise ProgramError("batch(): there is no data; pass a dataset to attach() or to batch()")
        self._member.enter("data")
        with work.watch.measure("data"):
            work.batches = self._batches.get(work.assign.ticket, work.assign.next_ticket)
        self._member.enter("compute")

    def close(self) -> None:
        """End the loader processes."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None

    def stop(self) -> None:
        """Note that this process was asked to end."""
        _log.info("leaving: asked to by SIGTERM")
        self.exit_code = Exit.SUCCESS

    def next(self) -> Work | None:
        """Wait for a ticket and its parameters, evaluating when asked; None when this worker is done.

        Raises errors.Refused, and whatever the program's data and evaluation raise.
        """
        waited = Stopwatch()
        while self.exit_code is None:
            try:
                self._member.enter("waiting")
                if (leave := self._member.inbox.leave) is not None:
                    self._leave(leave)
                elif (work := self._turn(waited)) is not None:
                    return work
            except ConnectionLost as error:
                self._member.lose(error)
            except Stopped:
                self.stop()
        return None

    def _turn(self, waited: Stopwatch) -> Work | None:
        """Do what the aggregator asks for, or wait a moment. Raises ConnectionLost, signals.Stopped."""
        if not self._member.joined:
            self._member.join_again()
        self._member.check_stop()
        self._member.ready()
        self._member.pump()
        inbox = self._member.inbox
        if inbox.leave is not None:
            return None
        if inbox.evaluate is not None and self._evaluated(inbox.evaluate) is not None:
            self._evaluate(inbox.evaluate)
        elif inbox.assign is not None and inbox.is_stale(inbox.assign):
            assign = inbox.begin()
            self._member.send(Abandoned(assign.iteration, assign.ticket))
            self._member.ready(at_once=True)
        elif inbox.assign is not None and self._load(inbox.assign.iteration):
            self._member.waited(inbox.assign.iteration, waited.elapsed)
            return self._begin(inbox.begin())
        else:
            self._member.wait(1.0)
        return None

    def _leave(self, leave: Leave) -> None:
        _log.info("leaving: %s%s", leave.why, f": {leave.detail}" if leave.detail else "")
        self.exit_code = _EXITS.get(leave.why, Exit.SUCCESS)

    def _load(self, iteration: int) -> bool:
        """Bring the parameters of `iteration` into the model; False while they are not all here."""
        inbox, connection = self._member.inbox, self._member.connections
        frozen = inbox.frozen()
        if frozen is not None and self._frozen_of != connection:
            self._flat.load("frozen", frozen)
            self._frozen_of = connection
        moving = inbox.section("moving", iteration)
        if moving is None or (self._flat.schema.frozen and not self._frozen_of):
            return False
        if self._loaded != (connection, iteration):
            self._flat.load("moving", moving)
            self._loaded = (connection, iteration)
        return True

    def _begin(self, assign: Assign) -> Work | None:
        """Read the ticket's mini-batch and make the model ready for it; None at the end of the data."""
        injected = self._pacer.begin(assign.iteration, assign.ticket)
        work = Work(self._member, self._spec, self._launch.attempt, assign, injected)
        if self._batches is not None:
            try:
                self.fetch(work)
            except EndOfData:
                _log.info("no more data at ticket %d", assign.ticket)
                self._member.send(Exhausted(assign.iteration, assign.ticket))
                return None
        work.begin(self._flat)
        return work

    def _evaluated(self, asked: Evaluate) -> Buffer | None:
        """Return the parameters to evaluate: those sent for it, or the plain ones where none are averaged."""
        inbox = self._member.inbox
        sent = inbox.section("ema", asked.iteration)
        return inbox.section("moving", asked.iteration) if sent is None and not asked.averaged else sent

    def _evaluate(self, asked: Evaluate) -> None:
        inbox = self._member.inbox
        inbox.evaluate = None
        moving = self._evaluated(asked)
        answer = Evaluated(asked.iteration)
        if self._evaluator is not None and moving is not None:
            self._member.enter("evaluate")
            answer = self._evaluator.run(
                asked.iteration, moving, inbox.frozen(), lambda: self._check_evaluation(asked.iteration)
            )
        self._member.send(answer)
        self._member.ready(at_once=True)

    def _check_evaluation(self, iteration: int) -> None:
        """Raise Interrupted when nobody waits for this evaluation any more."""
        try:
            self._member.check_stop()
            self._member.pump()
        except (ConnectionLost, Refused, Stopped) as error:
            raise Interrupted from error
        inbox = self._member.inbox
        if inbox.leave is not None or inbox.aborted >= iteration:
            raise Interrupted
