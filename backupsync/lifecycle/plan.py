"""The planner: from what is wanted, seen and remembered to what to do now. A pure function.

Call it whenever something happens and after `requeue_after` at the latest; write `Plan.status` down, then
carry out `Plan.actions` in their order. Actions are level-triggered: one that was lost is planned again.
"""

from msgspec import structs

from backupsync.control import AggregatorStatus, MemberStatus
from backupsync.lifecycle.aggregator import judge_aggregator, start_aggregator, stop_old_aggregators
from backupsync.lifecycle.conditions import refresh_conditions
from backupsync.lifecycle.desired import desire_running, tell
from backupsync.lifecycle.draft import Draft
from backupsync.lifecycle.ending import check_deadline, clean_up, let_go_of_lost, recognise_end
from backupsync.lifecycle.halting import halt, resume
from backupsync.lifecycle.members import (
    drop_surplus,
    fill_ranks,
    id_of,
    promote_candidates,
    settle_restarts,
    start_missing,
    stop_unwanted,
    tidy,
)
from backupsync.lifecycle.pending import watch_pending
from backupsync.lifecycle.restarts import acquit, credit_commits, judge_workers
from backupsync.lifecycle.types import JobStatus, Observed, Plan, ReplicaId
from backupsync.spec import BackupSyncJob

OURS = "backupsync.dev/operator"
"""What `runPolicy.managedBy` may say to mean this very engine."""


def plan(job: BackupSyncJob, observed: Observed, status: JobStatus, now: float) -> Plan:
    """Decide what to do about `job` at `now` (Unix seconds).

    `status` is the status of the last plan (or an empty one); `Plan.status` must be stored before
    `Plan.actions` are carried out. Equal arguments give equal plans.
    """
    draft = Draft(job, observed, status, now)
    if job.spec.run_policy.managed_by not in (None, OURS):
        return _leave_alone(draft)
    _take_in(draft)
    recognise_end(draft)
    if not draft.finished and not halt(draft):
        resume(draft)
        check_deadline(draft)
        if not draft.finished:
            _run(draft)
    if draft.finished:
        clean_up(draft)
    let_go_of_lost(draft)
    refresh_conditions(draft)
    return draft.plan()


def at_rest(status: JobStatus, observed: Observed) -> bool:
    """Whether the job has ended or is suspended and nothing of it runs: an engine may go home."""
    alive = any(replica.phase != "Exited" for replica in observed.replicas)
    return not alive and status.phase in ("Suspended", "Succeeded", "Failed")


def worth_writing(old: JobStatus, new: JobStatus) -> bool:
    """Whether `new` differs from `old` in more than clocks and the aggregator's figures.

    Those may be written less often; everything else must be written before the plan's actions.
    """

    def still(status: JobStatus) -> JobStatus:
        return structs.replace(status, observed_at=None, active_seconds=0.0, progress=None)

    return still(old) != still(new)


def _leave_alone(draft: Draft) -> Plan:
    owner = draft.spec.run_policy.managed_by
    message = f"spec.runPolicy.managedBy gives the job to {owner}: this engine leaves it alone"
    draft.condition("Accepted", "False", "ManagedBy", message)
    draft.note(message)
    return draft.plan()


def _take_in(draft: Draft) -> None:
    """Take in what is observed: the clock, the aggregator's figures, which replicas were there."""
    status, last = draft.status, draft.status.observed_at
    there = draft.there("aggregator") or draft.there("worker")
    if last is not None and there and status.phase in ("Pending", "Running"):
        # Only while something runs: an engine that was itself away did not train.
        draft.update(active_seconds=status.active_seconds + max(0.0, draft.now - last))
    answer = draft.last_answer
    if answer is not None:
        draft.update(progress=_kept(draft, answer))
        _judge_evaluation(draft, answer.evaluation_problem)
    seen = _seen(draft)
    draft.update(
        observed_at=draft.now,
        members=tuple(structs.replace(m, seen=m.seen or id_of(m) in seen) for m in draft.status.members),
        aggregator_seen=status.aggregator_seen or draft.answered or draft.aggregator_id in draft.replicas,
    )


def _seen(draft: Draft) -> set[ReplicaId]:
    """The workers that were there once: they are now, or had joined by the last answer that was written."""
    progress = draft.status.progress
    joined = () if progress is None else progress.members
    return {*draft.replicas, *(ReplicaId("worker", m.rank, m.attempt) for m in joined)}


def _kept(draft: Draft, answer: AggregatorStatus) -> AggregatorStatus:
    """What is remembered of an answer: no counts of members and no refusals where all is one API object."""
    if not draft.observed.pods:
        return answer
    old = draft.status.progress
    members = answer.members or (old.members if old is not None and old.epoch == answer.epoch else ())
    return bare(structs.replace(answer, members=members))


def bare(answer: AggregatorStatus) -> AggregatorStatus:
    """Return `answer` without refusals and without the members' counts: who is there, and how it stands."""
    members = (
        MemberStatus(rank=m.rank, attempt=m.attempt, start=m.start, state=m.state, phase="")
        for m in answer.members
    )
    return structs.replace(answer, members=tuple(members), refusals=())


def _judge_evaluation(draft: Draft, problem: str) -> None:
    """Announce an evaluation that failed: once, however often it fails in the same way."""
    if problem == draft.status.evaluation_problem:
        return
    draft.update(evaluation_problem=problem)
    if problem:
        more = "; the traceback is in the log of its worker" if "\n" in problem.strip() else ""
        said = problem.strip().splitlines()[-1]
        draft.announce("Warning", "EvaluationFailed", f"the newest evaluation has no result: {said}{more}")


def _run(draft: Draft) -> None:
    """Keep the job running: judge what there is, replace what ended, fit the members to the spec."""
    if draft.status.start_time is None:
        draft.update(start_time=draft.now)
    judge_aggregator(draft)
    if draft.finished:
        return
    drop_surplus(draft)
    promote_candidates(draft)
    credit_commits(draft)
    acquit(draft)
    judge_workers(draft)
    if draft.finished:
        return
    credit_commits(draft)  # those of candidates that have just taken over
    settle_restarts(draft)
    fill_ranks(draft)
    _scaled(draft)
    desire_running(draft)
    stop_old_aggregators(draft)
    stop_unwanted(draft)
    tidy(draft)
    tell(draft)
    start_aggregator(draft)
    start_missing(draft)
    watch_pending(draft)
    if draft.finished:
        return
    answer = draft.aggregator
    if answer is not None and answer.phase in ("Training", "Evaluating") and draft.status.phase == "Pending":
        draft.update(phase="Running")
        draft.announce("Normal", "Running", f"training is under way at iteration {answer.iteration}")
    if draft.content:
        draft.note(f"phase {draft.status.phase}: {len(draft.status.members)} members are intended")


def _scaled(draft: Draft) -> None:
    told, wanted = draft.status.desired, draft.spec.aggregation
    if told is None or (told.workers, told.backup_workers) == (wanted.workers, wanted.backup_workers):
        return
    draft.announce(
        "Normal",
        "Scaled",
        f"from {told.workers} workers and {told.backup_workers} backup workers "
        f"to {wanted.workers} and {wanted.backup_workers}",
    )
