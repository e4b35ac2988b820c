"""The hands of the round: they do what its effects say, in order, and nothing else."""

import logging
import time
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from backupsync.control import TERMINATED
from backupsync.trace import Ended, Iteration
from backupsync.wire import messages as wire
from backupsync_aggregator.checkpoints.saver import Saver
from backupsync_aggregator.clock import Clock
from backupsync_aggregator.network.gradients import Gradients
from backupsync_aggregator.network.peers import Peer, Peers
from backupsync_aggregator.network.post import Post
from backupsync_aggregator.round import effects
from backupsync_aggregator.round.events import Member
from backupsync_aggregator.telemetry.recorder import Recorder, completed, finite_only
from backupsync_aggregator.tensors.model_state import ModelState, WeightedGradient

_log = logging.getLogger(__name__)

Why = Literal["succeeded", "failed", "suspended", "fenced", "restart", "scaled"]
_WHY: Final[dict[str, Why]] = {"Succeeded": "succeeded", "Failed": "failed", "Suspended": "suspended"}


class Hands:
    """Executes effects on the sockets, the tensors, the disk."""

    def __init__(self, peers: Peers, post: Post, recorder: Recorder, saver: Saver, clock: Clock) -> None:
        self.model: ModelState | None = None
        self.gradients: Gradients | None = None
        self.finished: effects.Finish | None = None
        """How the job ended; set as soon as the round says so, final once `end` has been called."""
        self.taken_away = False
        """This process has to end while its job goes on elsewhere: members stay, and join the next epoch."""
        self.dismissed: list[Member] = []
        """Members sent home since the loop last looked."""
        self.learning_rate: float | None = None
        self.logged: dict[str, float] = {}
        """What the program logged, mean over the last iteration's accepted."""
        self._peers = peers
        self._post = post
        self._recorder = recorder
        self._saver = saver
        self._clock = clock
        self._began = clock.now()
        self._applied: tuple[int, float] = (-1, 0.0)
        self._ended: Ended | None = None
        self._how: dict[type, Callable[[Any], None]] = {
            effects.Assign: self._assign,
            effects.Tell: self._tell,
            effects.NoticeStale: self._notice_stale,
            effects.Apply: self._apply,
            effects.Dismiss: self._dismiss,
            effects.Evaluate: self._evaluate,
            effects.AbortEvaluation: self._abort_evaluation,
            effects.Record: self._record,
            effects.Finish: self._finish,
        }

    def begin(self, model: ModelState, gradients: Gradients) -> None:
        """Take up the tensors: from now on the round may train."""
        self.model, self.gradients = model, gradients
        self._began = self._clock.now()

    def execute(self, effect: effects.Effect) -> None:
        """Do one thing."""
        self._how[type(effect)](effect)

    def end(self, iteration: int) -> None:
        """Write what the end demands, then send everyone home. A model that cannot be written fails it."""
        assert self.finished is not None
        if self.moves:
            message = f"{self.finished.message}: asked to by SIGTERM, the next epoch goes on"
            self.finished = effects.Finish("Suspended", TERMINATED, message)
        self._save_end(iteration)
        finish, now = self.finished, self._clock.now()
        line = self._ended or Ended(at=now, iteration=iteration, outcome="", reason="")
        self._recorder.write(
            msgspec.structs.replace(
                line,
                outcome=finish.outcome,
                reason=finish.reason,
                message=finish.message,
                parameter_digest=self.model.digest() if self.model else None,
                wall_seconds=now - self._began,
            )
        )
        _log.info("%s: %s %s", finish.outcome, finish.reason, finish.message)
        self._recorder.flush()
        for peer in self._peers:
            self.bid_farewell(peer.member)

    @property
    def moves(self) -> bool:
        """Whether the job goes on under another aggregator."""
        return self.taken_away and self.finished is not None and self.finished.outcome == "Suspended"

    def bid_farewell(self, member: Member) -> None:
        """Send a member home because the job has ended; one of a job that goes on elsewhere stays."""
        assert self.finished is not None
        if self.moves:
            return
        self.send_home(member, _WHY[self.finished.outcome], self.finished.message)

    def _save_end(self, iteration: int) -> None:
        finish, model = self.finished, self.model
        if model is None or finish is None:
            return
        saved = self._saver.save(iteration, model)
        if finish.outcome == "Succeeded":
            saved = self._saver.save_model(model) and saved
        if saved:
            return
        if finish.outcome == "Succeeded":
            self.finished = effects.Finish("Failed", "CheckpointFailed", self._saver.problem)
        else:
            message = f"{finish.message}; {self._saver.problem}"
            self.finished = effects.Finish(finish.outcome, finish.reason, message)

    def _tensors(self) -> tuple[ModelState, Gradients]:
        assert self.model is not None, "the round trains before the job has parameters"
        assert self.gradients is not None
        return self.model, self.gradients

    def _assign(self, effect: effects.Assign) -> None:
        peer = self._peers.of(effect.member)
        if peer is None:
            return
        model, gradients = self._tensors()
        gradients.expect(effect.member, effect.iteration, effect.ticket)
        if effect.send_parameters:
            self._send_frozen(peer, model)
            self._post.send_section(peer, "moving", effect.iteration, model.published())
        epoch = peer.challenge.epoch
        self._post.send(
            peer,
            wire.Assign(epoch, effect.iteration, effect.ticket, effect.next_ticket, effect.to_the_end),
        )

    def _send_frozen(self, peer: Peer, model: ModelState) -> None:
        if not peer.frozen_sent:
            peer.frozen_sent = True
            self._post.send_section(peer, "frozen", 0, model.frozen_section())

    def _tell(self, effect: effects.Tell) -> None:
        if self.gradients is not None:
            settle = self.gradients.keep if effect.outcome is wire.Outcome.ACCEPTED else self.gradients.drop
            settle(effect.member, effect.ticket)
        self._send(
            effect.member,
            wire.Verdict(effect.iteration, effect.ticket, effect.outcome, effect.place, effect.reason),
        )

    def _notice_stale(self, effect: effects.NoticeStale) -> None:
        self._send(effect.member, wire.Stale(effect.iteration))

    def _apply(self, effect: effects.Apply) -> None:
        self._saver.verify()
        model, gradients = self._tensors()
        begin = time.perf_counter()
        ordered = sorted(effect.contributions, key=lambda c: c.place)
        inboxes = [gradients.held(part.member, part.ticket) for part in ordered]
        weighted = [
            WeightedGradient(box.flat, part.examples, part.scale, box.absent, box.buffers)
            for part, box in zip(ordered, inboxes, strict=True)
        ]
        applied = model.apply(weighted, effect.examples_before)
        self.logged = mean_of([finite_only(box.metrics) for box in inboxes])
        self.learning_rate = applied.learning_rate
        for part in ordered:
            gradients.release(part.member, part.ticket)
        self._applied = (effect.iteration, time.perf_counter() - begin)

    def _dismiss(self, effect: effects.Dismiss) -> None:
        self.send_home(effect.member, effect.why, effect.detail)
        self.dismissed.append(effect.member)

    def send_home(self, member: Member, why: Why, detail: str) -> None:
        """Tell a member to leave, and forget its connection and what it was sending."""
        if peer := self._peers.of(member):
            self._post.send(peer, wire.Leave(why, detail[:4096]))
            self._peers.dismiss(peer)
        if self.gradients is not None:
            self.gradients.leave(member)

    def _evaluate(self, effect: effects.Evaluate) -> None:
        peer = self._peers.of(effect.member)
        if peer is None:
            return
        model, _ = self._tensors()
        self._send_frozen(peer, model)
        self._post.send_section(peer, "ema", effect.iteration, model.evaluation_section())
        self._post.forget_version("ema")
        self._post.send(peer, wire.Evaluate(effect.iteration, model.averaged))

    def _abort_evaluation(self, effect: effects.AbortEvaluation) -> None:
        self._send(effect.member, wire.AbortEvaluation(effect.iteration))

    def _record(self, effect: effects.Record) -> None:
        line = effect.line
        if isinstance(line, Ended):
            self._ended = line
            return
        if isinstance(line, Iteration) and line.iteration == self._applied[0]:
            line = completed(line, self._applied[1], self.learning_rate)
        self._recorder.write(line)

    def _finish(self, effect: effects.Finish) -> None:
        self.finished = effect

    def _send(self, member: Member, message: wire.FromAggregator) -> None:
        if peer := self._peers.of(member):
            self._post.send(peer, message)


def mean_of(logged: list[dict[str, float]]) -> dict[str, float]:
    """Return, for every name, the mean over those who logged it."""
    names = dict.fromkeys(name for metrics in logged for name in metrics)
    given = {name: [metrics[name] for metrics in logged if name in metrics] for name in names}
    return {name: sum(values) / len(values) for name, values in given.items()}
