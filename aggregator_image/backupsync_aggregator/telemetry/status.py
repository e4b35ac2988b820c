"""What the engine is told: one snapshot of the round, the members and the disk."""

from collections import Counter
from dataclasses import dataclass
from typing import Final

from backupsync.control import AggregatorStatus, MemberStatus, Phase
from backupsync_aggregator.checkpoints.saver import Saver
from backupsync_aggregator.control_server import Desk
from backupsync_aggregator.hands import Hands
from backupsync_aggregator.network.peers import Peers
from backupsync_aggregator.network.refusing import Refusals
from backupsync_aggregator.network.transport import Link
from backupsync_aggregator.round import AnyRound
from backupsync_aggregator.telemetry.metrics import Metrics
from backupsync_aggregator.telemetry.recorder import Recorder

_ENDED: Final[dict[str, Phase]] = {
    "Succeeded": "Succeeded",
    "Failed": "Failed",
    "Suspended": "Suspended",
}


_INTERVAL_SECONDS: Final = 0.1


@dataclass(frozen=True)
class JobIdentity:
    """What the status says of the job itself."""

    name: str
    uid: str
    epoch: int


@dataclass(frozen=True)
class Sources:
    """Where the figures come from."""

    link: Link
    peers: Peers
    recorder: Recorder
    saver: Saver
    hands: Hands
    metrics: Metrics
    refusals: Refusals


class Publisher:
    """Brings status and metrics up to date, and shows them to whoever asks over HTTP."""

    def __init__(self, identity: JobIdentity, sources: Sources, desk: Desk) -> None:
        self.applied = (0, 0)
        """(term, generation) of the desired state in force."""
        self._identity = identity
        self._from = sources
        self._desk = desk
        self._shown = float("-inf")
        self._counted = (0, 0, 0)

    def publish(self, round_: AnyRound, now: float, *, at_once: bool = False) -> None:
        """Show how things stand, if a moment has passed since the last time or it must be `at_once`."""
        self._from.recorder.flush(now)
        if now - self._shown < _INTERVAL_SECONDS and not at_once:
            return
        self._shown = now
        status = self.status(round_, now)
        self._desk.publish(status)
        self._show_metrics(status)

    def _show_metrics(self, status: AggregatorStatus) -> None:
        sources, metrics = self._from, self._from.metrics
        for member in [m for m in sources.recorder.samples if not sources.peers.of(m)]:
            if not any((s.rank, s.attempt) == member for s in status.members):
                sources.recorder.forget(member)
        sources.recorder.publish()
        metrics.iteration.set(status.iteration)
        metrics.required.set(status.required)
        metrics.backups.set(status.backups)
        metrics.show_phase(status.phase)
        metrics.show_workers(Counter(member.state for member in status.members))
        self._count(metrics)

    def _count(self, metrics: Metrics) -> None:
        """Bring the counters of bytes and chunks up to what sockets and arrays have counted."""
        link, gradients = self._from.link, self._from.hands.gradients
        now = (link.received_bytes, link.sent_bytes, gradients.discarded if gradients else 0)
        counters = (metrics.received_bytes, metrics.sent_bytes, metrics.discarded_chunks)
        for counter, new, old in zip(counters, now, self._counted, strict=True):
            counter.inc(new - old)
        self._counted = now

    def status(self, round_: AnyRound, now: float) -> AggregatorStatus:
        """Return the status at this moment."""
        recorder, hands = self._from.recorder, self._from.hands
        rate = recorder.rate(now)
        left = None if round_.iterations_total is None else max(0, round_.iterations_total - round_.iteration)
        phase, reason, message = self._phase(round_)
        return AggregatorStatus(
            job=self._identity.name,
            uid=self._identity.uid,
            epoch=self._identity.epoch,
            phase=phase,
            reason=reason,
            message=message,
            applied=self.applied,
            required=round_.required,
            backups=round_.backups,
            iteration=round_.iteration,
            iterations_total=round_.iterations_total,
            examples=round_.examples,
            examples_total=round_.examples_total,
            rate=rate,
            eta_seconds=left / rate if left is not None and rate > 0 else None,
            loss=recorder.loss,
            learning_rate=hands.learning_rate,
            evaluation=recorder.evaluation,
            evaluation_problem=recorder.evaluation_problem,
            metrics=hands.logged,
            checkpoint_iteration=self._from.saver.newest,
            members=self._members(round_),
            refusals=self._from.refusals.all(),
        )

    def _phase(self, round_: AnyRound) -> tuple[Phase, str, str]:
        finish = self._from.hands.finished
        if finish is not None:
            return _ENDED[finish.outcome], finish.reason, finish.message
        saver = self._from.saver
        message = "; ".join(
            text for text in (round_.message, saver.problem, self._from.recorder.problem) if text
        )
        reason = "CheckpointFailed" if saver.problem and not round_.reason else round_.reason
        return round_.phase, reason, message

    def _members(self, round_: AnyRound) -> tuple[MemberStatus, ...]:
        statuses = []
        for member, view in sorted(round_.members.items()):
            peer = self._from.peers.of(member)
            statuses.append(
                MemberStatus(
                    rank=member.rank,
                    attempt=member.attempt,
                    start=view.start,
                    state=view.state,
                    phase=peer.phase if peer else "gone",
                    accepted=view.accepted,
                    dropped=view.dropped,
                    refused=view.refused,
                    commits=view.commits,
                    busy_p50_seconds=self._from.recorder.busy_p50(member),
                    last_outcome=view.last_outcome,
                )
            )
        return tuple(statuses)
