"""Pods as the API server has them -> replicas as the planner sees them."""

from typing import Any

import pytest

from backupsync.control import AggregatorStatus, MemberStatus
from backupsync.exits import ExitKind
from backupsync.kube.names import replica_labels
from backupsync.lifecycle.types import Replica, ReplicaId
from backupsync.termination import encode_ending
from backupsync_operator.observe import replicas

NOW = 1_800_000_000.0
WORKER, AGGREGATOR = ReplicaId("worker", 1, 2), ReplicaId("aggregator", 0, 3)


def at(seconds: float) -> str:
    from backupsync_operator.cr_status import time_of

    return str(time_of(NOW + seconds))


def pod(state: dict[str, Any] | None = None, *, id_: ReplicaId = WORKER, **more: Any) -> dict[str, Any]:
    status: dict[str, Any] = {"phase": more.pop("phase", "Running"), **more.pop("status", {})}
    if state is not None:
        ready = "running" in state
        own = {"name": id_.role, "state": state, "ready": ready, "restartCount": more.pop("restarts", 0)}
        status["containerStatuses"] = [{"name": "sidecar", "state": {"running": {}}}, own]
    metadata = {"name": "p", "labels": replica_labels("digits", "u", id_), **more.pop("metadata", {})}
    return {"metadata": metadata, "spec": {"nodeName": more.pop("node", "n1")}, "status": status}


def see(made: dict[str, Any], answer: AggregatorStatus | None = None, nodes: Any = None) -> Replica:
    return replicas([made], answer, nodes, NOW, 30.0)[0]


def terminated(code: int, **more: Any) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed", **more}}


def test_a_running_container():
    replica = see(pod({"running": {}}))
    assert (replica.id, replica.phase, replica.node, replica.ready) == (WORKER, "Running", "n1", True)
    assert replica.exit is None


def test_objects_that_are_no_replica_of_ours_are_passed_over():
    assert replicas([{"metadata": {"labels": {"app": "x"}}}, {"metadata": {}}], None, None, NOW, 30.0) == ()


def test_replicas_come_in_order():
    made = [pod({}, id_=ReplicaId("worker", rank, 1)) for rank in (2, 0, 1)]
    assert [r.id.rank for r in replicas(made, None, None, NOW, 30.0)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (0, ExitKind.SUCCEEDED),
        (1, ExitKind.RETRYABLE),
        (65, ExitKind.PERMANENT),
        (69, ExitKind.RETRYABLE),
        (75, ExitKind.ASKED),
        (76, ExitKind.ASKED),
        (78, ExitKind.PERMANENT),
        (137, ExitKind.RETRYABLE),  # a SIGKILL that no out-of-memory killer sent
        (143, ExitKind.RETRYABLE),
    ],
)
def test_an_exit_code_says_what_kind_of_end_it_was(code, kind):
    replica = see(pod(terminated(code, message="boom"), phase="Failed"))
    assert (replica.phase, replica.exit, replica.exit_code, replica.message) == ("Exited", kind, code, "boom")


def test_a_sidecar_that_runs_on_does_not_hide_the_end():
    replica = see(pod(terminated(1), phase="Running"))
    assert replica.phase == "Exited"
    assert replica.lingers
    assert not see(pod(terminated(1), phase="Failed")).lingers


def test_a_native_sidecar_is_ended_by_its_kubelet_and_keeps_nothing():
    made = pod(terminated(0), phase="Running")
    made["status"]["initContainerStatuses"] = [{"name": "proxy", "state": {"running": {}}}]
    made["status"]["containerStatuses"] = [
        c for c in made["status"]["containerStatuses"] if c["name"] == "worker"
    ]
    assert not see(made).lingers


@pytest.mark.parametrize("code", [1, 137])
def test_the_kernels_out_of_memory_killer_is_named_by_the_kubelet(code):
    replica = see(pod(terminated(code, reason="OOMKilled")))
    assert replica.exit is ExitKind.OUT_OF_MEMORY


def test_a_memory_error_of_the_program_says_so_itself():
    replica = see(pod(terminated(137, message="RuntimeError: CUDA out of memory")))
    assert replica.exit is ExitKind.OUT_OF_MEMORY


@pytest.mark.parametrize(
    "status",
    [
        {"reason": "Evicted", "message": "The node was low on resource: memory."},
        {"reason": "NodeShutdown", "message": "Pod was terminated in response to imminent node shutdown."},
        {"reason": "Terminated"},
        {"reason": "Preempting", "message": "Preempted in order to admit critical pod"},
        {"reason": "UnexpectedAdmissionError", "message": "Allocate failed"},
        {"reason": "OutOfcpu", "message": "Node didn't have enough resource: cpu"},
        {"reason": "NodeAffinity"},
    ],
)
@pytest.mark.parametrize("state", [None, terminated(137), terminated(0), terminated(143)])
def test_a_pod_ended_from_outside_is_nobodys_fault(status, state):
    replica = see(pod(state, phase="Failed", status=status))
    assert replica.exit is ExitKind.DISRUPTED
    assert replica.disruption == status["reason"]
    assert status.get("message", "") in replica.message


def test_an_eviction_through_the_api_is_seen_while_the_pod_ends():
    conditions = [
        {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "EvictionByEvictionAPI",
            "message": "drained",
        }
    ]
    made = pod({"running": {}}, status={"conditions": conditions}, metadata={"deletionTimestamp": at(20)})
    replica = see(made)
    assert (replica.phase, replica.stopping, replica.disruption) == ("Running", True, "EvictionByEvictionAPI")
    ended = see(pod(terminated(143), phase="Failed", status={"conditions": conditions}))
    assert ended.exit is ExitKind.DISRUPTED
    assert "drained" in ended.message


def test_a_disruption_does_not_hide_bad_input():
    conditions = [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]
    assert see(pod(terminated(65), status={"conditions": conditions})).exit is ExitKind.PERMANENT


@pytest.mark.parametrize(
    "message",
    [
        "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. ",
        'Usage of EmptyDir volume "backupsync-scratch" exceeds the limit "1Gi". ',
        'Container worker exceeded its local ephemeral storage limit "1Gi". ',
    ],
)
def test_an_eviction_for_a_limit_of_its_own_would_come_again_anywhere(message):
    replica = see(pod(terminated(137), phase="Failed", status={"reason": "Evicted", "message": message}))
    assert replica.exit is ExitKind.RETRYABLE
    assert replica.disruption == ""
    alone = see(pod(None, phase="Failed", status={"reason": "Evicted", "message": message}))
    assert (alone.exit, alone.message) == (ExitKind.RETRYABLE, message)


def test_a_deadline_of_the_users_own_template_is_no_disruption():
    status = {
        "reason": "DeadlineExceeded",
        "message": "Pod was active on the node longer than the specified deadline",
    }
    assert see(pod(terminated(143), phase="Failed", status=status)).exit is ExitKind.RETRYABLE
    alone = see(pod(None, phase="Failed", status=status))
    assert (alone.exit, alone.disruption) == (ExitKind.RETRYABLE, "")


def test_a_container_that_its_node_forgot_went_down_with_it():
    made = terminated(137, reason="ContainerStatusUnknown", message="The container could not be located")
    assert see(pod(made, phase="Failed")).exit is ExitKind.DISRUPTED


def test_an_init_container_that_fails_is_the_end_of_the_replica():
    init = {"name": "fetch", "state": terminated(3, message="no such bucket")}
    waiting = {"waiting": {"reason": "PodInitializing"}}
    replica = see(pod(waiting, phase="Failed", status={"initContainerStatuses": [init]}))
    assert replica.phase == "Exited"
    assert replica.exit is ExitKind.RETRYABLE
    assert replica.exit_code is None, "its code means nothing of ours"
    assert replica.message == "init container fetch: no such bucket"


def test_an_init_container_may_run_out_of_memory_too():
    init = {"name": "fetch", "state": terminated(137, reason="OOMKilled")}
    assert (
        see(pod(None, phase="Failed", status={"initContainerStatuses": [init]})).exit
        is ExitKind.OUT_OF_MEMORY
    )


def test_a_command_that_cannot_be_started_says_so():
    words = 'failed to create containerd task: exec: "python3": executable file not found in $PATH'
    replica = see(pod(terminated(128, reason="StartError", message=words), phase="Failed"))
    assert (replica.exit, replica.message) == (ExitKind.RETRYABLE, words)


def scheduled(reason: str, message: str) -> dict[str, Any]:
    return {"conditions": [{"type": "PodScheduled", "status": "False", "reason": reason, "message": message}]}


@pytest.mark.parametrize("reason", ["Unschedulable", "SchedulingGated"])
def test_a_pod_without_a_node_is_pending_in_the_schedulers_words(reason):
    replica = see(pod(None, phase="Pending", node="", status=scheduled(reason, "0/3 nodes are available")))
    assert (replica.phase, replica.reason, replica.message) == ("Pending", reason, "0/3 nodes are available")


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("ImagePullBackOff", "ImagePullBackOff"),
        ("ErrImagePull", "ImagePullBackOff"),
        ("ErrImageNeverPull", "ErrImageNeverPull"),
        ("InvalidImageName", "InvalidImageName"),
        ("CreateContainerConfigError", "CreateContainerConfigError"),
    ],
)
@pytest.mark.parametrize("init", [False, True])
def test_a_container_that_cannot_start_is_pending_in_the_kubelets_words(reason, shown, init):
    waiting = {"waiting": {"reason": reason, "message": "no such image"}}
    state, status = waiting, {}
    if init:
        state, status = (
            {"waiting": {"reason": "PodInitializing"}},
            {"initContainerStatuses": [{"name": "i", "state": waiting}]},
        )
    replica = see(pod(state, phase="Pending", status=status))
    assert (replica.phase, replica.reason, replica.message) == ("Pending", shown, "no such image")


@pytest.mark.parametrize("state", [None, {}, {"waiting": {"reason": "ContainerCreating"}}])
def test_a_pod_that_is_merely_starting_has_no_reason(state):
    replica = see(pod(state, phase="Pending"))
    assert (replica.phase, replica.reason) == ("Pending", "")


def test_starts_are_the_kubelets_or_the_aggregators_count():
    member = MemberStatus(rank=1, attempt=2, start=3, state="Live", phase="compute")
    answer = AggregatorStatus(job="digits", uid="u", epoch=1, phase="Training", members=(member,))
    assert see(pod({"running": {}}), answer).starts == 3
    assert see(pod({"running": {}}, restarts=4), answer).starts == 4
    assert see(pod({"running": {}}, id_=AGGREGATOR), answer).starts == 0


# ---- nodes


def node(status: str, since: float) -> dict[str, Any]:
    return {
        "n1": {
            "status": {"conditions": [{"type": "Ready", "status": status, "lastTransitionTime": at(since)}]}
        }
    }


@pytest.mark.parametrize(
    ("nodes", "ready", "lost"),
    [
        (node("True", -900), True, False),
        (node("Unknown", -10), False, False),
        (node("Unknown", -30), False, True),
        (node("False", -900), True, False),  # its kubelet speaks: it can still confirm an end
        ({}, True, False),  # too new for our informer
        (None, True, False),
    ],
)
def test_a_node_is_lost_once_nothing_was_heard_of_it_for_the_grace_period(nodes, ready, lost):
    replica = see(pod({"running": {}}), nodes=nodes)
    assert (replica.node_ready, replica.node_lost) == (ready, lost)


def test_a_pod_on_a_silent_node_is_not_found_well_by_anybody():
    assert see(pod({"running": {}}), nodes=node("Unknown", -1)).ready is False


@pytest.mark.parametrize("nodes", [None, {}, node("True", -900)])
@pytest.mark.parametrize(("due", "lost"), [(5, False), (-30, False), (-61, True)])
def test_an_end_that_is_long_overdue_counts_as_a_lost_node(nodes, due, lost):
    made = pod({"running": {}}, metadata={"deletionTimestamp": at(due), "deletionGracePeriodSeconds": 30})
    assert see(made, nodes=nodes).node_lost is lost


@pytest.mark.parametrize("more", [{"phase": "Unknown"}, {"status": {"reason": "NodeLost"}}])
def test_the_api_servers_own_word_for_a_lost_node(more):
    assert see(pod({"running": {}}, **more)).node_lost


def test_a_pod_without_a_node_has_none_to_lose():
    replica = see(pod(None, phase="Pending", node="", status=scheduled("Unschedulable", "x")), nodes={})
    assert (replica.node, replica.node_lost) == ("", False)


# ---- the end of an aggregator


def test_an_aggregator_leaves_its_last_status_behind():
    last = AggregatorStatus(
        job="digits",
        uid="u",
        epoch=3,
        phase="Succeeded",
        reason="Completed",
        message="400 iterations",
        iteration=400,
    )
    replica = see(pod(terminated(0, message=encode_ending(last)), id_=AGGREGATOR, phase="Succeeded"))
    assert replica.final == last
    assert replica.message == "400 iterations"
    assert replica.exit is ExitKind.SUCCEEDED


@pytest.mark.parametrize("words", ["", "Traceback ...", "{", '{"job": 1}', "[1]", "null"])
def test_other_last_words_of_an_aggregator_are_just_words(words):
    replica = see(pod(terminated(1, message=words), id_=AGGREGATOR, phase="Failed"))
    assert replica.final is None
    assert replica.message == words.strip()


def test_a_worker_has_no_last_status():
    last = encode_ending(AggregatorStatus(job="digits", uid="u", epoch=3, phase="Succeeded"))
    assert see(pod(terminated(1, message=last), phase="Failed")).final is None
