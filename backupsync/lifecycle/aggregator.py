"""The aggregator's life: its attempt is its epoch, and it comes back only from a checkpoint.

A new epoch is minted whenever the old one exited, vanished or hangs. Without durable storage an aggregator
that had begun training is not restarted from 0 in silence: the job fails and says what would have saved it.
"""

from msgspec import structs

from backupsync.exits import Exit, ExitKind
from backupsync.lifecycle.draft import Draft
from backupsync.lifecycle.members import backoff
from backupsync.lifecycle.restarts import LOST_TIMEOUTS, Blame, last_words, permanent_reason
from backupsync.lifecycle.types import Replica, Start
from backupsync.lifecycle.words import name_of

SILENCE_SECONDS = 30.0
"""Shortest silence after which a running aggregator is taken to hang."""


def mint_epoch(draft: Draft) -> None:
    """Put the next epoch in office."""
    seen = (r.attempt for r in draft.replicas if r.role == "aggregator")
    epoch = max(draft.status.aggregator_attempt, *seen, 0) + 1
    draft.update(aggregator_attempt=epoch, aggregator_seen=False, aggregator_silent_since=None)


def durable(draft: Draft) -> bool:
    """Whether checkpoints outlive the aggregator."""
    if draft.observed.durable is not None:
        return draft.observed.durable
    checkpoint = draft.spec.checkpoint
    return checkpoint.path is not None or checkpoint.volume_claim_template is not None


def can_lose(draft: Draft) -> bool:
    """Whether the aggregator in office may end and nothing of the training be lost."""
    return durable(draft) or not draft.status.begun


def can_come_back(draft: Draft) -> bool:
    """Whether a next epoch can go on where the last one ended; otherwise the job has failed by this call."""
    if can_lose(draft):
        return True
    iteration = draft.status.progress.iteration if draft.status.progress else 0
    draft.fail(
        "NoCheckpoint",
        f"the aggregator ended at iteration {iteration} and nothing of it was kept: set spec.checkpoint.path "
        "(or spec.checkpoint.volumeClaimTemplate on a cluster), then delete this job and run it anew",
    )
    return False


def judge_aggregator(draft: Draft) -> None:
    """Look at the aggregator in office and answer what happened to it; may end the job as Failed."""
    if draft.status.aggregator_attempt == 0:
        mint_epoch(draft)
        return
    _credit_progress(draft)
    if draft.dismissed:
        draft.update(members=tuple(structs.replace(m, dismissed=True) for m in draft.status.members))
    else:
        _keep_who_stayed(draft)
    replica = draft.replicas.get(draft.aggregator_id)
    if replica is None:
        if draft.status.aggregator_seen:
            _end(draft, "vanished", "it was deleted or its node lost", "loss")
    elif replica.phase == "Exited":
        _exited(draft, replica)
    elif replica.node_lost:
        _node_lost(draft, replica)
    elif replica.stopping:
        # Not at once: it writes a checkpoint, and its successor would fence it before.
        draft.note(
            f"{name_of(replica.id)} is being ended from outside: the next epoch follows when it is gone"
        )
    else:
        _watch_silence(draft, replica)


def _keep_who_stayed(draft: Draft) -> None:
    """A member that has joined this epoch was not sent home by the one before, as had been thought."""
    members = () if draft.aggregator is None else draft.aggregator.members
    live = {(m.rank, m.attempt) for m in members if m.state in ("Live", "Candidate")}
    if any(m.dismissed and (m.rank, m.attempt) in live for m in draft.status.members):
        draft.update(
            members=tuple(
                structs.replace(m, dismissed=m.dismissed and (m.rank, m.attempt) not in live)
                for m in draft.status.members
            )
        )


def start_aggregator(draft: Draft) -> None:
    """Start the aggregator in office if it has no replica, once its pause and its predecessors are over."""
    if draft.aggregator_id in draft.replicas:
        return
    name, status = name_of(draft.aggregator_id), draft.status
    if draft.now < status.aggregator_retry_at:
        draft.wake(status.aggregator_retry_at)
        pause = backoff(status.aggregator_crashes + status.aggregator_losses)
        draft.note(f"{name} waits out its pause of {pause:g} s")
    elif not draft.observed.pods and draft.there("aggregator"):
        draft.note(f"{name} waits for the one before it to end: they would share an address")
    else:
        first = draft.status.aggregator_attempt == 1
        draft.act(
            Start(draft.aggregator_id, "the job needs one" if first else "it goes on from the checkpoint")
        )


def stop_old_aggregators(draft: Draft) -> None:
    """Stop aggregators of earlier epochs: workers refuse them, and so does the checkpoint directory."""
    for replica in draft.there("aggregator"):
        if replica.id != draft.aggregator_id:
            draft.stop(replica, f"epoch {draft.status.aggregator_attempt} is in office", grace_seconds=0.0)


def _credit_progress(draft: Draft) -> None:
    answer, status = draft.aggregator, draft.status
    if answer is None or not (status.aggregator_crashes or status.aggregator_losses):
        return
    if answer.iteration > status.aggregator_iteration:
        draft.update(aggregator_crashes=0, aggregator_losses=0)


def _exited(draft: Draft, replica: Replica) -> None:
    words = last_words(replica)
    if replica.exit is ExitKind.PERMANENT:
        message = f"{name_of(replica.id)} cannot go on, trying again cannot help: {words}"
        draft.fail(permanent_reason(replica), message)
    elif replica.exit is ExitKind.DISRUPTED:
        _end(draft, f"was ended from outside ({replica.disruption})", words, "eviction")
    elif replica.exit is ExitKind.SUCCEEDED:
        _end(draft, "ended by itself with exit code 0", words, "loss")
    elif replica.exit_code == Exit.FENCED:
        _end(draft, "found a newer epoch in the checkpoint directory", words, "crash")
    else:
        _end(draft, "crashed", words, "crash")


def _node_lost(draft: Draft, replica: Replica) -> None:
    """Its node is out of reach: a next epoch takes over, and the checkpoint directory fences a revenant."""
    where = f"node {replica.node} is out of reach"
    if can_lose(draft) or replica.stopping:
        _end(draft, "is on a lost node", where, "loss")
    else:
        draft.note(f"{name_of(replica.id)}: {where}; nothing of it is kept elsewhere, so it is waited for")


def _watch_silence(draft: Draft, replica: Replica) -> None:
    """A running aggregator that answered before and answers no more hangs; it is replaced if it can be."""
    since = draft.status.aggregator_silent_since
    if draft.aggregator is not None or not draft.answered:
        if since is not None:
            draft.update(aggregator_silent_since=None)
        return
    if since is None:
        since = draft.now
        draft.update(aggregator_silent_since=since)
    patience = max(SILENCE_SECONDS, LOST_TIMEOUTS * draft.spec.aggregation.wire.timeout_seconds)
    if draft.now < since + patience:
        draft.wake(since + patience)
        draft.note(f"{name_of(replica.id)} runs but does not answer: it may come back until replaced")
    elif not replica.node_ready:
        draft.note(f"{name_of(replica.id)}: node {replica.node} is out of reach, it may come back")
    elif replica.ready:
        draft.note(f"{name_of(replica.id)} is well for its kubelet: it is this engine that does not reach it")
    elif not can_lose(draft):
        draft.note(f"{name_of(replica.id)} does not answer, yet with no checkpoint ending it would lose all")
    else:
        _end(draft, "hung", f"no answer for more than {patience:g} s", "crash")


def _end(draft: Draft, what: str, words: str, blame: Blame) -> None:
    """Mint the next epoch after the pause its failures earn; fail the job at the limit."""
    status, old = draft.status, draft.aggregator_id
    limit = draft.spec.run_policy.backoff_limit
    counted = blame == "crash"
    crashes, losses = status.aggregator_crashes + counted, status.aggregator_losses + (not counted)
    reached = status.progress.iteration if status.progress else 0
    draft.update(
        aggregator_crashes=crashes,
        aggregator_losses=losses,
        aggregator_crashes_total=status.aggregator_crashes_total + counted,
        aggregator_losses_total=status.aggregator_losses_total + (blame == "loss"),
        aggregator_evictions=status.aggregator_evictions + (blame == "eviction"),
        aggregator_retry_at=draft.now + backoff(crashes + losses),
        aggregator_iteration=max(status.aggregator_iteration, reached),
    )
    if crashes > limit:
        message = (
            f"the aggregator failed {crashes} times in a row with no progress between "
            f"(spec.runPolicy.backoffLimit {limit}); at last epoch {old.attempt} {what}: {words}"
        )
        draft.fail("AggregatorBackoffLimitExceeded", message)
    elif can_come_back(draft):
        mint_epoch(draft)
        origin = "the newest checkpoint" if durable(draft) else "the beginning, as no iteration had been seen"
        message = (
            f"{name_of(old)} {what}; epoch {draft.status.aggregator_attempt} goes on from {origin}: {words}"
        )
        draft.announce("Warning", "AggregatorReplaced", message)
