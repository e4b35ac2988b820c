"""Whatever happens, in whatever order: what must never happen does not, and everything comes to rest."""

from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from backupsync.lifecycle import at_rest, plan, with_candidate, with_restart, worth_writing
from backupsync.lifecycle.types import Announce, Start

CODES = st.sampled_from([0, 1, 1, 1, 69, 75, 76, 134, 137, 139])
PICK = st.integers(0, 50)


class Life(RuleBasedStateMachine):
    make_world: Callable
    pods: bool

    def __init__(self) -> None:
        super().__init__()
        self.world = self.make_world(workers=2, backups=1, backoffLimit=3, suspendGraceSeconds=20)
        self.world.pods = self.pods
        self.generation = 0
        self.epochs = 0

    def some(self, role: str, pick: int):
        found = self.world.running(role)
        return found[pick % len(found)][0] if found else None

    @rule(lost=st.sets(st.integers(0, 6), max_size=3), seconds=st.sampled_from([0.0, 0.2, 1.0, 15.0]))
    def look(self, lost, seconds):
        world = self.world
        world.now += seconds
        observed, before = world.observe(), world.status
        was_finished = before.phase in ("Succeeded", "Failed")
        made = world.look(lost)
        again = plan(world.job, observed, made.status, world.now)
        assert again.status == made.status, "planning twice changes nothing"
        done = [a for a in made.actions if not isinstance(a, Announce)]
        assert list(again.actions) == done, "lost actions are planned again, announcements are not"
        if was_finished:
            assert not [a for a in made.actions if isinstance(a, Start)], "finished is finished"
            assert world.status.phase == before.phase
        minted = {(m.rank, m.attempt) for m in before.members}
        for member in made.status.members:
            past = next((h.attempts for h in before.ranks if h.rank == member.rank), 0)
            assert (member.rank, member.attempt) in minted or member.attempt > past, "minted twice"
        if made.status.desired != before.desired:
            assert worth_writing(before, made.status)
            assert made.status.desired.order > (before.desired.order if before.desired else (0, 0))
        assert made.explanation, "every plan says why"

    @rule()
    def boot(self):
        self.world.boot()

    @rule(iterations=st.integers(1, 5))
    def train(self, iterations):
        self.world.train(iterations)

    @rule()
    def obey(self):
        self.world.obey()

    @rule()
    def reap(self):
        self.world.reap()

    @rule(pick=PICK, code=CODES)
    def worker_exits(self, pick, code):
        if (id_ := self.some("worker", pick)) is not None:
            self.world.exit(id_, code, "RuntimeError: boom")

    @rule(pick=PICK)
    def worker_vanishes(self, pick):
        if (id_ := self.some("worker", pick)) is not None:
            self.world.vanish(id_)

    @rule(pick=PICK)
    def worker_freezes(self, pick):
        if (id_ := self.some("worker", pick)) is not None:
            self.world.freeze(id_)

    @rule()
    def workers_thaw(self):
        self.world.frozen.clear()

    @rule(code=st.sampled_from([0, 1, 76, 137]))
    def aggregator_exits(self, code):
        if (id_ := self.some("aggregator", 0)) is not None:
            self.world.exit(id_, code)

    @rule(silent=st.booleans())
    def aggregator_falls_silent(self, silent):
        self.world.silent = silent

    @rule(workers=st.integers(1, 3), backups=st.integers(0, 2))
    def scale(self, workers, backups):
        self.world.aggregation = {"workers": workers, "backupWorkers": backups}

    @rule(suspend=st.booleans())
    def suspend(self, suspend):
        self.world.policy = {**self.world.policy, "suspend": suspend}

    @rule(stop=st.sampled_from([False, False, True]))
    def interrupt(self, stop):
        self.world.stop_requested = stop

    @precondition(lambda self: any(not m.candidate for m in self.world.status.members))
    @rule(pick=PICK)
    def surge(self, pick):
        members = [m for m in self.world.status.members if not m.candidate]
        self.world.status = with_candidate(self.world.status, members[pick % len(members)].rank)

    @precondition(lambda self: bool(self.world.running("worker")))
    @rule(pick=PICK)
    def restart(self, pick):
        id_, replica = self.world.running("worker")[pick % len(self.world.running("worker"))]
        if any((m.rank, m.attempt) == (id_.rank, id_.attempt) for m in self.world.status.members):
            self.world.status = with_restart(self.world.status, id_.rank, replica.starts)

    @precondition(
        lambda self: self.world.aggregator is not None and self.world.aggregator.phase == "Training"
    )
    @rule(phase=st.sampled_from(["Succeeded", "Failed"]), often=st.integers(0, 5))
    def training_ends(self, phase, often):
        if often == 0:
            self.world.finish(phase)

    @invariant()
    def counters_are_bounded(self):
        limit = self.world.job.spec.run_policy.backoff_limit
        assert all(h.crashes <= limit + 1 for h in self.world.status.ranks)
        assert self.world.status.aggregator_crashes <= limit + 1
        if any(h.crashes > limit for h in self.world.status.ranks):
            assert self.world.status.phase == "Failed"

    @invariant()
    def generation_and_epoch_only_rise(self):
        desired = self.world.status.desired
        generation = desired.generation if desired else 0
        assert generation >= self.generation
        assert self.world.status.aggregator_attempt >= self.epochs
        self.generation, self.epochs = generation, self.world.status.aggregator_attempt

    @invariant()
    def one_member_a_rank(self):
        ranks = [m.rank for m in self.world.status.members if not m.candidate]
        assert len(ranks) == len(set(ranks))
        candidates = [m.rank for m in self.world.status.members if m.candidate]
        assert len(candidates) == len(set(candidates))
        assert set(candidates) <= set(ranks)

    def teardown(self):
        world = self.world
        world.frozen.clear()
        world.settle(rounds=120)
        assert world.look().actions == (), "at rest nothing is left to do"
        if world.status.phase in ("Succeeded", "Failed", "Suspended"):
            assert world.alive() == []
            assert at_rest(world.status, world.observe())
            return
        total = world.job.spec.aggregation.total
        assert [id_.rank for id_ in world.alive() if id_.role == "worker"] == list(range(total))
        assert [id_ for id_ in world.alive() if id_.role == "aggregator"] == [world.epoch]
        assert world.condition("Ready").status == "True"


def test_processes_under_any_mishap(make_world):
    run(make_world, pods=False)


def test_pods_under_any_mishap(make_world):
    run(make_world, pods=True)


def run(make_world: Callable, *, pods: bool) -> None:
    life = type("Life", (Life,), {"make_world": staticmethod(make_world), "pods": pods})
    chosen = settings(
        max_examples=120, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(life, settings=chosen)
