"""What becomes of a worker that exits, vanishes or falls silent.

A crash is held against `backoffLimit` only while no gradient of the rank reached COMMIT between two of them.
What is not the worker's fault (deletion, an aggregator out of reach) slows its next start down, no more.
"""

from typing import Literal

from msgspec import structs

from backupsync.exits import Exit, ExitKind
from backupsync.lifecycle.draft import Draft
from backupsync.lifecycle.members import backoff, id_of, succeed
from backupsync.lifecycle.types import MemberIntent, Replica, ReplicaId
from backupsync.lifecycle.words import name_of

LEAVING_SECONDS = 2.0
"""How long a worker that ended with 0 may precede the news that the job is at its end."""
LOST_TIMEOUTS = 3.0
"""Wire timeouts for which a lost worker whose replica still runs may come back."""
LOST_POD_SECONDS = 60.0
"""Least patience with a pod: by then a cluster knows whether it is its node that is out of reach."""
Blame = Literal["crash", "loss", "eviction"]
"""Whose fault an end was: only crashes are held against `backoffLimit`."""
LAST_WORDS = 2000
"""Characters kept of an exited replica's message: the end of a traceback says most."""


def last_words(replica: Replica) -> str:
    """The end of what an exited replica said, with memory named where it ran out."""
    said = replica.message.strip()[-LAST_WORDS:]
    if replica.exit is ExitKind.OUT_OF_MEMORY:
        remedy = (
            "killed with exit code 137, as when memory runs out: lower spec.training.batchSize, "
            "raise spec.training.accumulate, or give it more memory"
        )
        return f"{remedy}; {said}" if said else remedy
    if not said:
        return "it left no message" if replica.exit_code is None else f"exit code {replica.exit_code}"
    return said


def permanent_reason(replica: Replica) -> str:
    """The reason of a job that fails by an exit which trying again cannot heal."""
    reasons = {
        int(Exit.BAD_INPUT): "ProgramRefused",
        int(Exit.CANNOT_WRITE): "CannotWrite",
        int(Exit.CONFIGURATION): "BadConfiguration",
    }
    return reasons.get(replica.exit_code if replica.exit_code is not None else -1, "BadInput")


def credit_commits(draft: Draft) -> None:
    """Forget a rank's crashes once a gradient of its current attempt reached COMMIT since the last look."""
    answer = draft.aggregator
    commits = {} if answer is None else {(m.rank, m.attempt): m.commits for m in answer.members}
    for member in [m for m in draft.status.members if not m.candidate]:
        count = commits.get((member.rank, member.attempt))
        seen = draft.history(member.rank).commits_seen
        if count is None or count == seen:
            continue
        if count > seen:
            draft.remember(member.rank, commits_seen=count, crashes=0, losses=0)
        else:  # an aggregator that came back counts from 0
            draft.remember(member.rank, commits_seen=count)


def judge_workers(draft: Draft) -> None:
    """Look at every member's replica and answer what happened to it; may end the job as Failed."""
    judged: set[ReplicaId] = set()
    while not draft.finished:
        # Verdicts replace members: a candidate that has just taken over is judged as the member it is now.
        member = next((m for m in draft.status.members if id_of(m) not in judged), None)
        if member is None:
            return
        judged.add(id_of(member))
        _judge(draft, member)


def _judge(draft: Draft, member: MemberIntent) -> None:
    replica = draft.replicas.get(id_of(member))
    if replica is None:
        if member.seen:
            _end(draft, member, "vanished", "its replica was deleted or its node lost", "loss")
    elif replica.phase != "Exited" and replica.node_lost:
        _end(draft, member, "is on a lost node", f"node {replica.node} is out of reach", "loss")
    elif replica.phase != "Exited" and replica.stopping:
        # At once: its successor has another attempt, and need not wait for its grace period.
        _end(draft, member, "is being ended from outside", *_disrupted(replica))
    elif replica.phase != "Exited":
        if replica.starts > member.starts and not member.candidate:
            _started_again(draft, member, replica)
        else:
            _watch_lost(draft, member, replica)
    elif member.candidate:
        _discard(draft, member, last_words(replica))
    elif replica.starts < member.starts and not draft.observed.pods:
        draft.note(f"{name_of(replica.id)} is to start again in place")
    else:
        _exited(draft, member, replica)


def _exited(draft: Draft, member: MemberIntent, replica: Replica) -> None:
    match replica.exit:
        case ExitKind.PERMANENT:
            message = f"{name_of(replica.id)} cannot go on, trying again cannot help: {last_words(replica)}"
            draft.fail(permanent_reason(replica), message)
        case ExitKind.DISRUPTED:
            _end(draft, member, "was ended from outside", *_disrupted(replica))
        case ExitKind.SUCCEEDED:
            _left(draft, member)
        case ExitKind.ASKED if replica.exit_code == Exit.FENCED:
            _fenced(draft, member, replica)
        case ExitKind.ASKED:
            _restart_in_place(draft, member, replica)
        case _:
            unreachable = replica.exit_code == Exit.UNAVAILABLE and draft.aggregator is None
            _end(draft, member, "crashed", last_words(replica), "loss" if unreachable else "crash")


def _disrupted(replica: Replica) -> tuple[str, Blame]:
    said = "; ".join(filter(None, (replica.disruption or "deleted", replica.message.strip()[-LAST_WORDS:])))
    return said, "eviction" if replica.disruption else "loss"


def _left(draft: Draft, member: MemberIntent) -> None:
    """It ended with 0: the job may be at its end and the news not here yet, so wait before replacing it."""
    if member.dismissed:
        _end(draft, member, "was sent home", "its aggregator was ended from outside", "loss")
        return
    since = draft.history(member.rank).left_since
    if since is None:
        since = draft.now
        draft.remember(member.rank, left_since=since)
    if draft.now < since + LEAVING_SECONDS:
        draft.wake(since + LEAVING_SECONDS)
        draft.note(f"{name_of(id_of(member))} ended with 0: waiting for news of the job's end")
    else:
        said = "ended by itself with exit code 0 while the job goes on"
        _end(draft, member, "left", said, "crash")


def _fenced(draft: Draft, member: MemberIntent, replica: Replica) -> None:
    if any(m.candidate and m.rank == member.rank for m in draft.status.members):
        successor = succeed(draft, member)
        message = f"{name_of(id_of(successor))} has taken the place of attempt {member.attempt}"
        draft.announce("Normal", "CandidatePromoted", message)
        return
    # Turned away although it is desired: its own fault only if the aggregator knew what is desired.
    _end(draft, member, "was fenced", last_words(replica), "crash" if draft.echoed else "loss")


def _started_again(draft: Draft, member: MemberIntent, replica: Replica) -> None:
    """The engine (a kubelet, say) has restarted it in place: a crash, unless it was asked for."""
    draft.replace_member(member, structs.replace(member, starts=replica.starts))
    _count_restart(draft, member.rank)
    if _asked(draft, member):
        draft.announce("Normal", "WorkerRestarted", f"{name_of(replica.id)} restarted in place, as asked")
    elif _count(draft, member, "restarted in place", last_words(replica), "crash"):
        said = f"{name_of(replica.id)} was restarted in place (start {replica.starts}): counted as a crash"
        draft.announce("Warning", "WorkerCrashed", said)


def _asked(draft: Draft, member: MemberIntent) -> bool:
    return any((r.rank, r.attempt) == (member.rank, member.attempt) for r in draft.status.restarts)


def _count_restart(draft: Draft, rank: int) -> None:
    draft.remember(rank, restarts_total=draft.history(rank).restarts_total + 1)


def _restart_in_place(draft: Draft, member: MemberIntent, replica: Replica) -> None:
    if draft.observed.pods:  # an ended pod starts no more: a new attempt does instead
        asked = _asked(draft, member)
        said = "exited with 75, as asked" if asked else "exited with 75 although nobody asked"
        _end(draft, member, "ended to restart", said, "loss" if asked else "crash")
        return
    draft.replace_member(member, structs.replace(member, starts=replica.starts + 1))
    _count_restart(draft, member.rank)
    if _asked(draft, member):
        draft.announce("Normal", "WorkerRestarted", f"{name_of(replica.id)} restarts in place, as asked")
    elif _count(draft, member, "asked to restart unasked", last_words(replica), "crash"):
        said = f"{name_of(replica.id)} exited with 75 although nobody asked: counted as a crash"
        draft.announce("Warning", "WorkerCrashed", said)


def _watch_lost(draft: Draft, member: MemberIntent, replica: Replica) -> None:
    """A replica that runs but is lost to the aggregator is frozen or cut off: it has a while to come back."""
    answer = draft.aggregator
    pair = (member.rank, member.attempt)
    lost = answer is not None and any(
        (m.rank, m.attempt) == pair and m.state == "Lost" for m in answer.members
    )
    since = draft.history(member.rank).lost_since
    if member.candidate or not lost:
        if since is not None and not member.candidate:
            draft.remember(member.rank, lost_since=None)
        return
    if since is None:
        since = draft.now
        draft.remember(member.rank, lost_since=since)
    patience = LOST_TIMEOUTS * draft.spec.aggregation.wire.timeout_seconds
    if draft.observed.pods:
        patience = max(patience, LOST_POD_SECONDS)
    if draft.now < since + patience:
        draft.wake(since + patience)
        draft.note(f"{name_of(replica.id)} is lost but its replica runs: it may come back until replaced")
        return
    said = f"frozen or cut off for more than {patience:g} s"
    _end(draft, member, "hung", said, "crash" if replica.node_ready else "loss")
    if replica.node_ready:
        draft.remember(member.rank, hung_attempt=member.attempt)


def acquit(draft: Draft) -> None:
    """Take a crash back that was counted for falling silent, where it was the node that fell silent."""
    for history in draft.status.ranks:
        if not history.hung_attempt:
            continue
        replica = draft.replicas.get(ReplicaId("worker", history.rank, history.hung_attempt))
        if replica is None:
            draft.remember(history.rank, hung_attempt=0)
        elif not replica.node_ready:
            draft.remember(
                history.rank,
                hung_attempt=0,
                crashes=max(0, history.crashes - 1),
                crashes_total=max(0, history.crashes_total - 1),
                losses=history.losses + 1,
                losses_total=history.losses_total + 1,
            )
            draft.note(f"worker {history.rank}: its node was out of reach, so no crash is counted")


def _discard(draft: Draft, candidate: MemberIntent, words: str) -> None:
    draft.replace_member(candidate)
    message = f"{name_of(id_of(candidate))} ended before its first gradient, its predecessor stays: {words}"
    draft.announce("Warning", "CandidateFailed", message)


def _end(draft: Draft, member: MemberIntent, what: str, words: str, blame: Blame) -> None:
    """Replace a member whose replica ended, after the pause its failures earn; fail the job at the limit."""
    if member.candidate:
        _discard(draft, member, words)
        return
    if _count(draft, member, what, words, blame):
        old = id_of(member)
        successor = succeed(draft, member)
        pause = max(0.0, draft.history(member.rank).retry_at - draft.now)
        message = f"{name_of(old)} {what}, attempt {successor.attempt} follows in {pause:g} s: {words}"
        draft.announce("Warning" if blame == "crash" else "Normal", "WorkerReplaced", message)


def _count(draft: Draft, member: MemberIntent, what: str, words: str, blame: Blame) -> bool:
    """Count a failure and set the pause before the next start; False when the job failed by it."""
    history, limit = draft.history(member.rank), draft.spec.run_policy.backoff_limit
    counted = blame == "crash"
    crashes, losses = history.crashes + counted, history.losses + (not counted)
    draft.remember(
        member.rank,
        crashes=crashes,
        crashes_total=history.crashes_total + counted,
        losses=losses,
        losses_total=history.losses_total + (blame == "loss"),
        evictions=history.evictions + (blame == "eviction"),
        retry_at=draft.now + backoff(crashes + losses),
    )
    if crashes <= limit:
        return True
    message = (
        f"worker {member.rank} failed {crashes} times in a row with no gradient between "
        f"(spec.runPolicy.backoffLimit {limit}); at last attempt {member.attempt} {what}: {words}"
    )
    draft.fail("BackoffLimitExceeded", message)
    return False
