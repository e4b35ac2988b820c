"""What holds whatever happens, in whatever order: the round under a hostile world.

The ledger checks after every event: never two gradients of one rank in an iteration, never a stale or
partial one, exactly N unless the trace says why fewer, one outcome for every ticket, no ticket in two hands,
nothing after the end. Here the world does its worst, and the round must also always be able to go on.
"""

import os
from collections import Counter

from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from round_dsl import Job

from backupsync_aggregator.round import Member, Origin, events

RANKS = st.integers(0, 4)
EXAMPLES = int(os.environ.get("BACKUPSYNC_ROUND_EXAMPLES", "150"))


class HostileWorld(RuleBasedStateMachine):
    """Workers, an engine and a clock that do whatever they can."""

    job: Job

    @initialize(
        mode=st.sampled_from(["BackupSync", "BackupSync", "Sync", "Async"]),
        workers=st.integers(1, 4),
        backups=st.integers(0, 2),
        policy=st.sampled_from(["Wait", "Shrink", "Fail"]),
        requeue=st.sampled_from(["Discard", "Requeue"]),
        ends=st.sampled_from([{"iterations": 12}, {"examples": 90}, {"epochs": 1}, {"iterations": 1000}]),
        batches=st.one_of(st.none(), st.integers(0, 40)),
        evaluates=st.integers(0, 2),
        origin=st.sampled_from([Origin(), Origin(iteration=3, examples=24, next_ticket=9, returned=(4, 7))]),
        everyone=st.booleans(),
    )
    def begin(self, mode, workers, backups, policy, requeue, ends, batches, evaluates, origin, everyone):
        backups = backups if mode == "BackupSync" else 0
        aggregation = {
            "belowQuorum": {"policy": policy, "deadlineSeconds": 20},
            "droppedBatches": requeue,
            "nonFiniteLimit": 4,
        }
        if mode == "Async":
            aggregation["maxStaleness"] = 3
        evaluation = {"everyIterations": evaluates, "deadlineSeconds": 15}
        self.job = Job(
            workers,
            backups,
            mode=mode,
            aggregation=aggregation,
            training={**ends, "evaluation": evaluation},
            origin=origin,
        )
        self.attempts = Counter(dict.fromkeys(range(10), 1))
        self.wanted = {Member(rank, 1): False for rank in range(workers + backups)}
        self.starts: Counter[Member] = Counter()
        self.job.on(events.DataLength(batches))
        self.limit = batches if "epochs" in ends else None
        if everyone:
            self.job.enter(*self.wanted)

    # ---- workers -------------------------------------------------------------------------------------

    @rule(rank=RANKS, again=st.booleans())
    def join(self, rank, again):
        member = Member(rank, self.attempts[rank])
        self.starts[member] += not again
        self.job.join(member, self.starts[member])
        self.job.ready(member, -1)

    @rule(rank=RANKS, attempt=st.integers(1, 3))
    def join_as_somebody_else(self, rank, attempt):
        self.job.join((rank, attempt))

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def leave(self, data):
        self.job.leave(data.draw(st.sampled_from(self.live())))

    @precondition(lambda self: self.live())
    @rule(data=st.data(), holds=st.integers(-1, 3))
    def ready(self, data, holds):
        self.job.ready(data.draw(st.sampled_from(self.live())), holds)

    @precondition(lambda self: self.computing())
    @rule(data=st.data(), rounds=st.integers(1, 3))
    def everyone_works(self, data, rounds):
        """All goes well for a while, in one order or another."""
        for _ in range(rounds):
            for member in data.draw(st.permutations(self.computing())):
                if self.job.round.members[member].assignment:
                    self.job.push(member)

    @precondition(lambda self: self.computing())
    @rule(data=st.data(), how=st.sampled_from(["commit", "push", "push"]))
    def gradient(self, data, how):
        getattr(self.job, how)(data.draw(st.sampled_from(self.computing())))

    @precondition(lambda self: self.computing())
    @rule(
        data=st.data(),
        wrong=st.sampled_from([{"finite": False}, {"whole": False}, {"examples": 0}, {"scale": 7.0}]),
    )
    def broken_gradient(self, data, wrong):
        self.job.commit(data.draw(st.sampled_from(self.computing())), **wrong)

    @precondition(lambda self: self.job.assignments)
    @rule(
        data=st.data(),
        what=st.sampled_from(["epoch", "attempt", "ticket", "iteration"]),
        by=st.integers(1, 3),
    )
    def forged_gradient(self, data, what, by):
        who = data.draw(st.sampled_from(sorted(self.job.assignments)))
        assign = self.job.assignments[who]
        true = {"epoch": 1, "attempt": who.attempt, "ticket": assign.ticket, "iteration": assign.iteration}
        self.job.commit(who, **{what: true[what] + by})

    @precondition(lambda self: self.job.assignments)
    @rule(data=st.data())
    def gradient_of_the_last_ticket_whether_answered_or_not(self, data):
        self.job.commit(data.draw(st.sampled_from(sorted(self.job.assignments))))

    @precondition(lambda self: self.job.assignments)
    @rule(data=st.data())
    def abandon(self, data):
        self.job.abandon(data.draw(st.sampled_from(sorted(self.job.assignments))))

    @precondition(lambda self: self.computing() and self.job.now > 30)
    @rule(data=st.data())
    def exhaust(self, data):
        self.job.exhaust(data.draw(st.sampled_from(self.computing())))

    @precondition(lambda self: self.evaluating())
    @rule(answer=st.sampled_from([{"loss": 1.0}, {"error": "no"}, {}]))
    def evaluated(self, answer):
        self.job.evaluated(self.evaluating()[0].rank, **answer)

    # ---- engine and clock ----------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0, 25.0]))
    def time_passes(self, seconds):
        self.job.tick(seconds)

    @rule(workers=st.integers(1, 4), backups=st.integers(0, 1))
    def resize(self, workers, backups):
        backups = backups if self.job.spec.aggregation.mode == "BackupSync" else 0
        ranks = range(workers + backups)
        kept = {m: c for m, c in self.wanted.items() if m.rank in ranks}
        new = {Member(r, self.attempts[r]): False for r in ranks if r not in {m.rank for m in kept}}
        self.wanted = kept | new
        self.desire(workers, backups)

    @precondition(lambda self: self.wanted)
    @rule(data=st.data(), beside=st.booleans())
    def replace(self, data, beside):
        rank = data.draw(st.sampled_from(sorted({m.rank for m in self.wanted})))
        self.attempts[rank] += 1
        if not beside:
            self.wanted = {m: c for m, c in self.wanted.items() if m.rank != rank}
        self.wanted[Member(rank, self.attempts[rank])] = beside
        self.desire()

    @precondition(lambda self: any(self.wanted.values()))
    @rule(promoted=st.booleans())
    def settle_candidates(self, promoted):
        """The engine promotes its candidates, or withdraws them."""
        ranks = {m.rank for m, candidate in self.wanted.items() if candidate}
        newest = {m: False for m in self.wanted if m.attempt == self.attempts[m.rank]}
        self.wanted = {
            m: c for m, c in self.wanted.items() if not (c if not promoted else m.rank in ranks)
        } | (newest if promoted else {})
        self.desire()

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def restart(self, data):
        who = data.draw(st.sampled_from(self.live()))
        self.job.ask(restart=(who,))

    @precondition(lambda self: self.job.now > 20)
    @rule(suspend=st.booleans(), stop=st.sampled_from([False, False, True]))
    def suspend_or_stop(self, suspend, stop):
        self.job.ask(suspend=suspend, stop=stop)

    # ---- what must hold ------------------------------------------------------------------------------

    @invariant()
    def live_is_the_number_of_ranks_with_a_live_member(self):
        assert self.job.round.live == len({m.rank for m in self.live()})

    @invariant()
    def assignments_are_those_without_an_outcome(self):
        held = {m: view.assignment[:2] for m, view in self.job.round.members.items() if view.assignment}
        assert held == {m: (a.iteration, a.ticket) for m, a in self.job.ledger.open.items()}

    @invariant()
    def no_ticket_is_lost_to_a_successor(self):
        returned = self.job.round.returned
        assert len(set(returned)) == len(returned)
        assert not set(returned) & self.job.ledger.spent
        assert {a.ticket for a in self.job.ledger.open.values()} <= set(returned)
        minted = range(self.job.origin.next_ticket, self.job.round.next_ticket)
        missing = set(minted) - set(returned) - self.job.ledger.spent - self.job.ledger.lost
        assert not {t for t in missing if self.limit is None or t < self.limit}

    @invariant()
    def enough_live_workers_always_make_progress(self):
        if self.job.round.phase == "Training" and self.job.round.live >= self.job.round.required:
            assert progresses(self.job), "N are live, and yet nothing happens"

    @invariant()
    def once_everyone_who_is_desired_has_come_there_is_progress(self):
        job = self.job.fork()
        for desired in job.desired.members:
            member = Member(desired.rank, desired.attempt)
            if member not in self.live():
                job.join(member, self.starts[member] + 1)
        if job.round.live >= job.desired.workers:
            assert progresses(job), "everyone is there, and yet nothing happens"

    def live(self):
        return sorted(m for m, view in self.job.round.members.items() if view.state in ("Live", "Candidate"))

    def computing(self):
        return sorted(m for m, view in self.job.round.members.items() if view.assignment)

    def evaluating(self):
        return sorted(m for m, view in self.job.round.members.items() if view.evaluating and m.attempt == 1)

    def desire(self, workers=None, backups=None):
        job = self.job
        candidates = [m for m, candidate in self.wanted.items() if candidate]
        job.scale(
            job.desired.workers if workers is None else workers,
            job.desired.backup_workers if backups is None else backups,
            self.wanted,
            candidates=candidates,
        )


def progresses(job: Job) -> bool:
    """Let every live worker do its work in turn, on a copy: does the iteration complete, or the job end?"""
    job = job.fork()
    before = job.round.iteration
    for _ in range(8):
        for member, view in job.round.members.items():
            if view.state not in ("Live", "Candidate"):
                continue
            if view.evaluating:
                job.on(events.Evaluated(member, job.round.iteration, {}, 0.0, "aborted"))
            if view.assignment:
                job.commit(member)
            job.ready(member)
            if job.round.iteration > before or job.round.phase not in ("Joining", "Training"):
                return True
        job.tick(3.0)
    note(f"stuck: {job.round.phase} {job.round.reason} {job.round.message} {job.round.members}")
    return False


TestHostileWorld = HostileWorld.TestCase
TestHostileWorld.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize="BACKUPSYNC_ROUND_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
