"""The end of a job: how it is recognised, how its replicas are let go, when its record is deleted.

Finished is finished: a job that succeeded or failed only stops what still runs, and never starts anything.
"""

from backupsync.lifecycle.desired import desire_halt, tell
from backupsync.lifecycle.draft import Draft
from backupsync.lifecycle.pending import in_words, stuck_replicas
from backupsync.lifecycle.types import Delete, Replica

DRAIN_SECONDS = 10.0
"""How long workers that the aggregator has dismissed may take to end by themselves."""


def recognise_end(draft: Draft) -> None:
    """End the job when its aggregator says that training succeeded or failed."""
    answer = draft.last_answer
    if answer is None or draft.finished:
        return
    if answer.phase == "Succeeded":
        message = answer.message or f"{answer.iteration} iterations, {answer.examples} examples applied"
        draft.succeed(answer.reason or "Completed", message)
    elif answer.phase == "Failed":
        waited = in_words(stuck_replicas(draft)) if draft.observed.pods else ""
        said = "; ".join(filter(None, (answer.message or "the aggregator gave up", waited)))
        draft.fail(answer.reason or "AggregatorFailed", said)


def check_deadline(draft: Draft) -> None:
    """End the job when it has been active for longer than it may be; suspension does not count."""
    limit = draft.spec.run_policy.active_deadline_seconds
    if limit is None or draft.finished or draft.status.start_time is None:
        return
    left = limit - draft.status.active_seconds
    if left <= 0:
        active = draft.status.active_seconds
        said = f"active for {active:.1f} s, spec.runPolicy.activeDeadlineSeconds is {limit:g}"
        draft.fail("DeadlineExceeded", said)
    else:
        draft.wake(draft.now + left)


def clean_up(draft: Draft) -> None:
    """Let the replicas of a finished job go, then delete its record when its time has come."""
    since = draft.status.completion_time
    since = draft.now if since is None else since
    # An aggregator at its end stays to dismiss its workers; one still at work is asked to stop at once.
    if not draft.dismissed or not draft.there("worker") or draft.now >= since + DRAIN_SECONDS:
        desire_halt(draft, stop=True)
    tell(draft)
    keep_running = draft.observed.pods and draft.spec.run_policy.clean_pod_policy == "None"
    if keep_running:
        draft.note("cleanPodPolicy None: replicas that still run are left alone")
    else:
        told = draft.dismissed or draft.aggregator is not None
        wind_up(draft, since=since, dismissed=told, reason="the job has ended")
        if draft.observed.pods:
            release(draft, "the job has ended; only sidecars still run in it")
    if draft.observed.pods and draft.spec.run_policy.clean_pod_policy == "All":
        remove_exited(draft, "cleanPodPolicy All removes finished pods too")
    _expire(draft, since)


def let_go_of_lost(draft: Draft) -> None:
    """Delete by force what has ended and is being deleted on a lost node: nobody else would confirm it."""
    for replica in draft.replicas.values():
        if replica.phase == "Exited" and replica.stopping and replica.node_lost:
            draft.stop(replica, "it has ended")


def wind_up(draft: Draft, *, since: float, dismissed: bool, reason: str) -> None:
    """Stop what still runs: dismissed workers first have a while to leave, then the aggregator goes.

    `since` is when the job ended (Unix seconds); `dismissed` says that an aggregator tells the workers to go.
    """
    workers, aggregators = draft.there("worker"), draft.there("aggregator")
    waiting = dismissed and draft.now < since + DRAIN_SECONDS
    leaving = [r for r in workers if waiting and not _unreachable(draft, r) and not _left_behind(draft, r)]
    for replica in workers:
        if replica not in leaving:
            draft.stop(replica, reason)
    if leaving:
        draft.wake(since + DRAIN_SECONDS)
        draft.note(f"{len(leaving)} workers are leaving by themselves")
        return
    until = since + draft.spec.run_policy.suspend_grace_seconds
    for replica in aggregators:
        in_office = replica.id == draft.aggregator_id and draft.aggregator is not None
        if in_office and draft.finished and draft.now < until:
            draft.wake(until)
            draft.note("the aggregator writes its last and ends by itself")
        else:
            draft.stop(replica, reason)


def _unreachable(draft: Draft, replica: Replica) -> bool:
    """Whether nobody can tell it to leave: it has not started, or the aggregator no longer reaches it."""
    if replica.phase == "Pending" or replica.node_lost:
        return True
    members = () if draft.aggregator is None else draft.aggregator.members
    pair = (replica.id.rank, replica.id.attempt)
    return any((m.rank, m.attempt) == pair and m.state == "Lost" for m in members)


def _left_behind(draft: Draft, replica: Replica) -> bool:
    """Whether the aggregator is gone and had not let it in before: it will never be told to leave."""
    progress = draft.status.progress
    joined = () if progress is None else ((m.rank, m.attempt) for m in progress.members)
    return not draft.there("aggregator") and (replica.id.rank, replica.id.attempt) not in joined


def remove_exited(draft: Draft, reason: str) -> None:
    """Delete the pods of replicas that have exited."""
    for replica in draft.observed.replicas:
        if replica.phase == "Exited":
            draft.stop(replica, reason)


def release(draft: Draft, reason: str) -> None:
    """Delete the pods that only their sidecars keep."""
    for replica in draft.observed.replicas:
        if replica.phase == "Exited" and replica.lingers:
            draft.stop(replica, reason)


def _expire(draft: Draft, since: float) -> None:
    ttl = draft.spec.run_policy.ttl_seconds_after_finished
    if ttl is None:
        draft.note("the job has ended; its record is kept")
        return
    due = since + ttl
    # Pods that cleanPodPolicy leaves alone go with the record: nobody else would ever end them.
    abandoned = draft.observed.pods and draft.spec.run_policy.clean_pod_policy == "None"
    if draft.now < due:
        draft.wake(due)
        draft.note(f"the record of the job is deleted {ttl} s after its end")
    elif not abandoned and (draft.there("worker") or draft.there("aggregator")):
        draft.note("the record of the job is deleted once nothing of it runs")
    else:
        draft.act(Delete(f"ttlSecondsAfterFinished {ttl} has passed"))
