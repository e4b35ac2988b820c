"""Whatever happens to pods, nodes and the operator: invariants hold at every step, and the training ends."""

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from simulated_cluster import Cluster, Operator

from backupsync.kube import names

PICK = st.integers(0, 50)
NODE = st.sampled_from(["n0", "n1", "n2"])
MOST_PODS = 24


class Blameless(RuleBasedStateMachine):
    """Mishaps that are nobody's fault: the job must always succeed in the end."""

    limit = 0

    @initialize()
    def begin(self) -> None:
        self.cluster = Cluster({"runPolicy": {"suspendGraceSeconds": 20, "backoffLimit": self.limit}})
        self.operator = Operator(self.cluster)
        self.saved = 0
        self.ended: str | None = None
        self.attempts: dict[int, int] = {}

    def some(self, role: str, pick: int) -> dict[str, Any] | None:
        found = []
        for pod in self.cluster.pods.values():
            alive = pod["status"]["phase"] in ("Pending", "Running")
            if alive and pod["metadata"]["labels"][names.ROLE_LABEL] == role:
                found.append(pod)
        return found[pick % len(found)] if found else None

    # ---- the operator

    @rule(lose=st.frozensets(st.integers(0, 7), max_size=3), unwritten=st.sampled_from([False] * 5 + [True]))
    def look(self, lose: frozenset[int], unwritten: bool) -> None:
        self.operator.look(lose=lose, unwritten=unwritten)

    @rule()
    def look_well(self) -> None:
        self.operator.sync()
        self.operator.look()

    @rule()
    def informers_catch_up(self) -> None:
        self.operator.sync()

    @rule(lose=st.frozensets(st.integers(0, 7), min_size=1, max_size=6))
    def operator_is_killed_in_the_middle(self, lose: frozenset[int]) -> None:
        self.operator.look(lose=lose)
        self.operator.restart()

    @rule()
    def another_operator_takes_the_lease(self) -> None:
        self.operator.term += 1
        self.operator.restart()

    # ---- the cluster

    @rule(iterations=st.integers(1, 4))
    def life_goes_on(self, iterations: int) -> None:
        self.cluster.schedule()
        self.cluster.kubelets(self.operator.desired_of)
        self.cluster.work(self.operator.memory.aggregator_attempt, iterations)
        self.operator.sync()
        self.operator.look()

    @rule(seconds=st.sampled_from([0.2, 1.0, 11.0, 31.0, 71.0]))
    def time_passes(self, seconds: float) -> None:
        self.cluster.now += seconds

    @rule(full=st.booleans())
    def the_cluster_is_full(self, full: bool) -> None:
        self.cluster.full = full

    @rule(
        pick=PICK,
        role=st.sampled_from(["worker", "worker", "aggregator"]),
        how=st.sampled_from(["", "EvictionByEvictionAPI"]),
    )
    def somebody_deletes_a_pod(self, pick: int, role: str, how: str) -> None:
        if (found := self.some(role, pick)) is not None:
            self.cluster.delete(found["metadata"]["name"], disruption=how)

    @rule(node=NODE)
    def a_node_is_drained(self, node: str) -> None:
        for name, found in list(self.cluster.pods.items()):
            if found["spec"].get("nodeName") == node:
                self.cluster.delete(name, disruption="EvictionByEvictionAPI")

    @rule(node=NODE)
    def a_node_crashes(self, node: str) -> None:
        self.cluster.nodes[node] = {"up": False, "reachable": False, "silent": self.cluster.now}
        self.cluster.processes = [p for p in self.cluster.processes if p.node != node]

    @rule(node=NODE)
    def a_node_is_cut_off(self, node: str) -> None:
        if self.cluster.nodes[node]["reachable"]:
            self.cluster.nodes[node] = {"up": True, "reachable": False, "silent": self.cluster.now}

    @rule(node=NODE)
    def a_node_is_back(self, node: str) -> None:
        self.cluster.nodes[node] = {"up": True, "reachable": True, "silent": None}

    # ---- the user

    @rule(workers=st.integers(1, 3), backups=st.integers(0, 2))
    def scale(self, workers: int, backups: int) -> None:
        self.cluster.resource["spec"]["aggregation"] = {"workers": workers, "backupWorkers": backups}

    @rule(suspend=st.booleans())
    def suspend(self, suspend: bool) -> None:
        self.cluster.resource["spec"]["runPolicy"]["suspend"] = suspend

    # ---- what must always hold

    @invariant()
    def no_two_processes_are_the_same_member(self) -> None:
        ids = [p.id for p in self.cluster.processes]
        assert len(ids) == len(set(ids)), ids

    @invariant()
    def every_rank_is_intended_once(self) -> None:
        ranks = [m.rank for m in self.operator.memory.members if not m.candidate]
        assert len(ranks) == len(set(ranks))

    @invariant()
    def attempts_only_rise(self) -> None:
        for history in self.operator.memory.ranks:
            assert history.attempts >= self.attempts.get(history.rank, 0)
            self.attempts[history.rank] = history.attempts

    @invariant()
    def nothing_saved_is_lost(self) -> None:
        assert self.cluster.saved >= self.saved
        self.saved = self.cluster.saved

    @invariant()
    def pods_are_few(self) -> None:
        assert len(self.cluster.pods) <= MOST_PODS, sorted(self.cluster.pods)

    @invariant()
    def finished_is_finished(self) -> None:
        state = self.operator.status.get("state")
        if self.ended is not None:
            assert state == self.ended
        if state in ("Succeeded", "Failed"):
            self.ended = state

    def teardown(self) -> None:
        self.cluster.full = False
        self.cluster.resource["spec"]["runPolicy"]["suspend"] = False
        if not any(node["reachable"] for node in self.cluster.nodes.values()):
            self.a_node_is_back("n0")  # the others stay away for good
        for _ in range(150):
            self.life_goes_on(3)
            self.cluster.now += 2.0
            self.operator.sync()
            idle = self.operator.look().actions == ()  # a pod on a lost node goes once its grace is over
            over = self.operator.memory.phase in ("Succeeded", "Failed")
            if over and idle and not self.left():
                break
        assert self.left() == []
        self.judge()
        self.operator.sync()
        assert self.operator.look().actions == (), "at rest nothing is left to do"

    def left(self) -> list[str]:
        """What still runs or is still being ended, where anybody can tell."""
        running = [str(p.id) for p in self.cluster.processes if self.cluster.reachable(p)]
        ending = [name for name, p in self.cluster.pods.items() if "deletionTimestamp" in p["metadata"]]
        return running + ending

    def judge(self) -> None:
        """What became of the job, once nothing fails any more."""
        memory = self.operator.memory
        assert memory.phase == "Succeeded", memory.conditions
        assert self.cluster.saved == 60


class Blamed(Blameless):
    """The same, and programs that crash."""

    limit = 3

    @rule(
        pick=PICK,
        code=st.sampled_from([1, 1, 69, 75, 76, 137, 139]),
        role=st.sampled_from(["worker", "worker", "aggregator"]),
    )
    def a_process_ends(self, pick: int, code: int, role: str) -> None:
        found = [p for p in self.cluster.processes if p.id.role == role and self.cluster.nodes[p.node]["up"]]
        if found and self.cluster.nodes[found[pick % len(found)].node]["reachable"]:
            self.cluster.exit(found[pick % len(found)], code, "RuntimeError: boom")

    def judge(self) -> None:
        memory = self.operator.memory
        if memory.phase == "Failed":
            reason = next(c.reason for c in memory.conditions if c.type == "Failed")
            assert reason in ("BackoffLimitExceeded", "AggregatorBackoffLimitExceeded")
        else:
            super().judge()


def run(machine: type[RuleBasedStateMachine], examples: int) -> None:
    chosen = settings(
        max_examples=examples, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(machine, settings=chosen)


def test_what_is_nobodys_fault_never_fails_a_job():
    run(Blameless, 60)


def test_crashes_among_all_that():
    run(Blamed, 60)
