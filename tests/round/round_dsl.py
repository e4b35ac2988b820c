"""The small language of the round's tests: a job at whose door things happen, and what came of them."""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, TypeVar

from round_ledger import Ledger

from backupsync.control import DesiredMember
from backupsync.spec import JobSpec
from backupsync.trace import Gradient, Line
from backupsync.wire.messages import Commit, Timing
from backupsync_aggregator.round import Member, Origin, Round, events
from backupsync_aggregator.round.effects import (
    AbortEvaluation,
    Apply,
    Assign,
    Dismiss,
    Effect,
    Evaluate,
    Finish,
    NoticeStale,
    Record,
    Tell,
)

E = TypeVar("E", bound=Effect)
L = TypeVar("L", bound=Line)


def spec_of(
    mode: str = "BackupSync",
    workers: int = 2,
    backups: int = 0,
    aggregation: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    **rest: Any,
) -> JobSpec:
    """A job's specification; it ends after 100 iterations unless `training` says otherwise."""
    training = dict(training or {})
    if not {"iterations", "examples", "epochs"} & set(training):
        training["iterations"] = 100
    return JobSpec.model_validate(
        {
            "program": {"entrypoint": "a:B"},
            "aggregation": {
                "mode": mode,
                "workers": workers,
                "backupWorkers": backups,
                **(aggregation or {}),
            },
            "training": {"batchSize": 4, "optimizer": {"lr": 0.1}, **training},
            **rest,
        }
    )


def member(who: int | tuple[int, int]) -> Member:
    """A rank means its first attempt."""
    return Member(who, 1) if isinstance(who, int) else Member(*who)


@dataclass
class Heard:
    """The effects of one event."""

    effects: list[Effect] = field(default_factory=list)

    def all(self, kind: type[E]) -> list[E]:
        """Every effect of a kind, in order."""
        return [e for e in self.effects if isinstance(e, kind)]

    def lines(self, kind: type[L]) -> list[L]:
        """Every line of the trace of a kind, in order."""
        return [e.line for e in self.all(Record) if isinstance(e.line, kind)]

    @property
    def updates(self) -> list[Apply]:
        return self.all(Apply)

    @property
    def assigned(self) -> list[Member]:
        """Who was handed a ticket."""
        return [e.member for e in self.all(Assign)]

    @property
    def told(self) -> list[tuple[int, str]]:
        """(rank, outcome or reason) of every verdict."""
        return [(t.member.rank, (t.reason or t.outcome).value) for t in self.all(Tell)]

    @property
    def noticed(self) -> list[int]:
        """Ranks that were told that they are late."""
        return [e.member.rank for e in self.all(NoticeStale)]

    @property
    def dismissed(self) -> list[tuple[Member, str]]:
        return [(e.member, e.why) for e in self.all(Dismiss)]

    @property
    def evaluating(self) -> list[int]:
        return [e.member.rank for e in self.all(Evaluate)]

    @property
    def aborted(self) -> list[int]:
        return [e.member.rank for e in self.all(AbortEvaluation)]

    @property
    def recorded(self) -> list[tuple[int, str, str | None]]:
        """(rank, outcome, reason) of every gradient in the trace."""
        return [(g.rank, g.outcome, g.reason) for g in self.lines(Gradient)]

    @property
    def finish(self) -> tuple[str, str] | None:
        """(outcome, reason) if the job is over."""
        return next(((f.outcome, f.reason) for f in self.all(Finish)), None)


class Job:
    """A round under watch. Ranks stand for their attempt 1; (rank, attempt) names another."""

    def __init__(
        self,
        workers: int = 2,
        backups: int = 0,
        *,
        members: Iterable[int | tuple[int, int]] | None = None,
        candidates: Iterable[int | tuple[int, int]] = (),
        origin: Origin | None = None,
        desire: events.Desire | None = None,
        **how: Any,
    ) -> None:
        self.spec = spec_of(workers=workers, backups=backups, **how)
        self.origin = origin or Origin()
        wanted = [member(m) for m in (range(workers + backups) if members is None else members)]
        self.desired = desire or self.desire(wanted, workers, backups, candidates)
        self.now = 0.0
        self.round = Round(self.spec, self.origin, self.desired, self.now)
        self.ledger = Ledger(self.spec, self.origin, self.desired)
        self.heard = Heard()
        """Everything so far."""
        self.assignments: dict[Member, Assign] = {}
        """What each member was handed last."""

    @staticmethod
    def desire(
        members: Iterable[int | tuple[int, int]],
        workers: int,
        backups: int,
        candidates: Iterable[int | tuple[int, int]] = (),
        **more: Any,
    ) -> events.Desire:
        marked = {member(c) for c in candidates}
        everyone = sorted({member(m) for m in members} | marked)
        wanted = tuple(DesiredMember(rank=m.rank, attempt=m.attempt, candidate=m in marked) for m in everyone)
        return events.Desire(wanted, workers, backups, **more)

    def on(self, event: events.Event) -> Heard:
        """Let something happen now."""
        effects = self.round.on(event, self.now)
        self.ledger.check(event, effects)
        self.ledger.began = self.round.phase != "Joining"
        heard = Heard(effects)
        self.heard.effects += effects
        self.assignments.update({a.member: a for a in heard.all(Assign)})
        return heard

    def fork(self) -> "Job":
        """A copy, to see what would happen if; it has heard nothing yet."""
        shared = (self.spec, self.spec.aggregation.below_quorum, self.spec.training.evaluation)
        memo: dict[int, Any] = {id(part): part for part in shared}
        memo[id(self.heard)] = Heard()
        return deepcopy(self, memo)

    def after(self, seconds: float) -> "Job":
        """Let time pass."""
        self.now += seconds
        return self

    def tick(self, seconds: float = 0.0) -> Heard:
        self.now += seconds
        return self.on(events.Tick())

    def join(self, who: int | tuple[int, int], start: int = 0) -> Heard:
        return self.on(events.Joined(member(who), start))

    def leave(self, who: int | tuple[int, int]) -> Heard:
        return self.on(events.Left(member(who), "connection lost"))

    def ready(self, who: int | tuple[int, int], holds: int | None = None) -> Heard:
        last = self.assignments.get(member(who))
        return self.on(
            events.Ready(member(who), (last.iteration if last else -1) if holds is None else holds)
        )

    def enter(self, *who: int | tuple[int, int]) -> Heard:
        """Members join and are ready."""
        heard = Heard()
        for each in who:
            heard.effects += self.join(each).effects
            heard.effects += self.ready(each, -1).effects
        return heard

    def start(self) -> "Job":
        """Everyone who is desired joins and is ready."""
        self.enter(*(Member(m.rank, m.attempt) for m in self.desired.members))
        return self

    def commit(
        self,
        who: int | tuple[int, int],
        *,
        whole: bool = True,
        finite: bool = True,
        iteration: int | None = None,
        ticket: int | None = None,
        **fields: Any,
    ) -> Heard:
        """A member's gradient arrives, of what it was handed last unless said otherwise."""
        last = self.assignments[member(who)]
        values = {
            "epoch": self.origin.epoch,
            "attempt": member(who).attempt,
            "iteration": last.iteration if iteration is None else iteration,
            "ticket": last.ticket if ticket is None else ticket,
            "scale": 1.0,
            "examples": 4,
            "finite": finite,
            "norm": 1.0,
            "loss": 0.5,
            "timing": Timing(compute=0.1),
            **fields,
        }
        return self.on(events.Committed(member(who), Commit(**values), whole, finite))

    def push(self, *who: int | tuple[int, int], **how: Any) -> Heard:
        """Gradients arrive in this order, and each sender is ready again."""
        heard = Heard()
        for each in who:
            heard.effects += self.commit(each, **how).effects
            heard.effects += self.ready(each).effects
        return heard

    def abandon(self, who: int | tuple[int, int]) -> Heard:
        last = self.assignments[member(who)]
        return self.on(events.Abandoned(member(who), last.iteration, last.ticket))

    def exhaust(self, who: int | tuple[int, int]) -> Heard:
        last = self.assignments[member(who)]
        return self.on(events.Exhausted(member(who), last.iteration, last.ticket))

    def evaluated(self, who: int, error: str | None = None, **metrics: float) -> Heard:
        iteration = self.round.iteration
        asked = [e for e in self.heard.all(Evaluate) if e.member == member(who)]
        if asked:
            iteration = asked[-1].iteration
        return self.on(events.Evaluated(member(who), iteration, metrics, 1.0, error))

    def scale(
        self,
        workers: int,
        backups: int = 0,
        members: Iterable[int | tuple[int, int]] | None = None,
        candidates: Iterable[int | tuple[int, int]] = (),
        **more: Any,
    ) -> Heard:
        """The engine desires another N, b, or other members."""
        wanted = range(workers + backups) if members is None else members
        self.desired = self.desire(wanted, workers, backups, candidates, **more)
        return self.on(self.desired)

    def pairs(self) -> list[tuple[int, int]]:
        """(rank, attempt) of everyone desired."""
        return [(m.rank, m.attempt) for m in self.desired.members]

    def ask(self, **more: Any) -> Heard:
        """The engine asks for something more of the members as they are: suspend, stop, restart."""
        d = self.desired
        self.desired = events.Desire(d.members, d.workers, d.backup_workers, **more)
        return self.on(self.desired)
