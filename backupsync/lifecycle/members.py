"""Who should exist: minting (rank, attempt) pairs, fitting them to N + b, candidates, restarts in place.

A pair is minted into the status before its replica is started, and never twice: a rank's attempts only rise.
Nothing here restarts a worker that runs.
"""

from msgspec import structs

from backupsync.lifecycle.draft import Draft
from backupsync.lifecycle.types import (
    JobStatus,
    MemberIntent,
    RankHistory,
    ReplicaId,
    RestartIntent,
    Start,
)
from backupsync.lifecycle.words import name_of

BACKOFF_SECONDS = 0.5
BACKOFF_CAP_SECONDS = 60.0


def backoff(failures: int) -> float:
    """Seconds between the `failures`-th failure in a row and the next start: 0, 0.5, 1, 2, ... 60."""
    if failures <= 1:
        return 0.0
    return float(min(BACKOFF_CAP_SECONDS, BACKOFF_SECONDS * 2.0 ** min(failures - 2, 32)))


def id_of(intent: MemberIntent) -> ReplicaId:
    """The replica of a member."""
    return ReplicaId("worker", intent.rank, intent.attempt)


def with_candidate(status: JobStatus, rank: int) -> JobStatus:
    """Return `status` with a successor minted for `rank`, to run beside it until its first whole gradient.

    Unchanged when the rank has one already. Raises ValueError when `rank` is no member.
    """
    intents = [m for m in status.members if m.rank == rank]
    if not any(not m.candidate for m in intents):
        known = sorted({m.rank for m in status.members})
        raise ValueError(f"rank {rank} is no member, so it can have no candidate; members: {known}")
    if any(m.candidate for m in intents):
        return status
    history = next((h for h in status.ranks if h.rank == rank), RankHistory(rank=rank))
    attempt = max(history.attempts, *(m.attempt for m in intents)) + 1
    candidate = MemberIntent(rank=rank, attempt=attempt, candidate=True)
    others = (h for h in status.ranks if h.rank != rank)
    ranks = sorted((*others, structs.replace(history, attempts=attempt)), key=lambda h: h.rank)
    members = sorted((*status.members, candidate), key=lambda m: (m.rank, m.attempt))
    return structs.replace(status, ranks=tuple(ranks), members=tuple(members))


def with_restart(status: JobStatus, rank: int, start: int) -> JobStatus:
    """Return `status` with the member of `rank`, now in its `start`-th start, asked to restart in place.

    Unchanged when it is asked already. Raises ValueError when `rank` is no member.
    """
    member = next((m for m in status.members if m.rank == rank and not m.candidate), None)
    if member is None:
        raise ValueError(f"rank {rank} is no member, so it cannot be restarted")
    asked = RestartIntent(rank=rank, attempt=member.attempt, start=start)
    if any((r.rank, r.attempt) == (rank, member.attempt) for r in status.restarts):
        return status
    return structs.replace(status, restarts=(*status.restarts, asked))


def mint(draft: Draft, rank: int) -> MemberIntent:
    """Mint the next attempt of `rank`; the caller puts it among the members."""
    seen = (r.attempt for r in draft.replicas if r.role == "worker" and r.rank == rank)
    attempt = max(draft.history(rank).attempts, *seen, 0) + 1
    draft.remember(rank, attempts=attempt, commits_seen=0, lost_since=None, left_since=None)
    return MemberIntent(rank=rank, attempt=attempt)


def succeed(draft: Draft, member: MemberIntent) -> MemberIntent:
    """Put a successor in the place of `member`: its candidate where there is one, else the next attempt."""
    candidate = next((m for m in draft.status.members if m.rank == member.rank and m.candidate), None)
    if candidate is None:
        successor = mint(draft, member.rank)
    else:
        draft.replace_member(candidate)
        successor = structs.replace(candidate, candidate=False)
        draft.remember(member.rank, commits_seen=0, lost_since=None, left_since=None)
    draft.replace_member(member, successor)
    return successor


def drop_surplus(draft: Draft) -> None:
    """Take the highest ranks out of the members when N + b has shrunk."""
    total = draft.spec.aggregation.total
    surplus = [m for m in draft.status.members if m.rank >= total]
    for member in surplus:
        draft.replace_member(member)
        draft.note(f"{name_of(id_of(member))} is no longer wanted: workers + backupWorkers is {total}")


def fill_ranks(draft: Draft) -> None:
    """Mint a member for every rank of 0..N+b-1 that has none."""
    taken = {m.rank for m in draft.status.members if not m.candidate}
    for rank in range(draft.spec.aggregation.total):
        if rank not in taken:
            draft.update(members=(*draft.status.members, mint(draft, rank)))
    ordered = sorted(draft.status.members, key=lambda m: (m.rank, m.attempt))
    draft.update(members=tuple(ordered))


def promote_candidates(draft: Draft) -> None:
    """Make a candidate the member once the aggregator did, on its first whole gradient."""
    answer = draft.aggregator
    if answer is None:
        return
    state = {(m.rank, m.attempt): m.state for m in answer.members}
    for candidate in [m for m in draft.status.members if m.candidate]:
        old = next(m for m in draft.status.members if m.rank == candidate.rank and not m.candidate)
        promoted = state.get((candidate.rank, candidate.attempt)) == "Live"
        if promoted or state.get((old.rank, old.attempt)) == "Fenced":
            succeed(draft, old)
            said = f"{name_of(id_of(candidate))} has taken the place of attempt {old.attempt}"
            draft.announce("Normal", "CandidatePromoted", said)
        else:
            draft.note(f"{name_of(id_of(candidate))} is a candidate: no whole gradient from it yet")


def settle_restarts(draft: Draft) -> None:
    """Forget restarts in place that have happened, or whose member is no more."""
    answer = draft.aggregator
    starts = {} if answer is None else {(m.rank, m.attempt): m.start for m in answer.members}
    members = {(m.rank, m.attempt) for m in draft.status.members}

    def open_still(asked: RestartIntent) -> bool:
        pair = (asked.rank, asked.attempt)
        replica = draft.replicas.get(ReplicaId("worker", *pair))
        # The engine's own count is the one its crashes are told from, so it decides where it is known.
        reached = replica.starts if replica else starts.get(pair, 0)
        return pair in members and reached <= asked.start

    draft.update(restarts=tuple(filter(open_still, draft.status.restarts)))


def start_missing(draft: Draft) -> None:
    """Start every member that has no replica, or that exited to be started again, once its pause is over."""
    for member in draft.status.members:
        replica = draft.replicas.get(id_of(member))
        ended = replica is not None and replica.phase == "Exited" and not draft.observed.pods
        again = ended and replica is not None and replica.starts < member.starts
        if replica is not None and not again:
            continue
        history = draft.history(member.rank)
        if draft.now < history.retry_at and not member.candidate:
            draft.wake(history.retry_at)
            pause = backoff(history.crashes + history.losses)
            draft.note(f"{name_of(id_of(member))} waits out its pause of {pause:g} s")
            continue
        draft.act(Start(id_of(member), _reason(member)))


def stop_unwanted(draft: Draft) -> None:
    """Stop workers that are no members; ranks that vanished only once the aggregator has let them go."""
    wanted = {id_of(member) for member in draft.status.members}
    answer = draft.aggregator
    lost = {(m.rank, m.attempt) for m in (answer.members if answer else ()) if m.state == "Lost"}
    for replica in draft.there("worker"):
        if replica.id in wanted:
            continue
        vanished = replica.id.rank >= draft.spec.aggregation.total
        if vanished and answer is not None and not draft.echoed:
            draft.note(f"{name_of(replica.id)} stays until the aggregator has let it go")
        else:
            reason = "its rank is gone" if vanished else "another attempt has its place"
            # One that is frozen, or cut off, would not hear a polite request.
            draft.stop(replica, reason, 0.0 if (replica.id.rank, replica.id.attempt) in lost else 10.0)


def tidy(draft: Draft) -> None:
    """Delete ended pods that nobody reads any more: of every rank the newest one is kept, for its log."""
    if not draft.observed.pods:
        return
    wanted = {draft.aggregator_id, *(id_of(member) for member in draft.status.members)}
    kept: set[tuple[str, int]] = set()
    for replica in sorted(draft.replicas.values(), key=lambda r: r.id, reverse=True):
        if replica.phase != "Exited" or replica.id in wanted:
            continue
        place = (replica.id.role, replica.id.rank)
        if replica.lingers:
            draft.stop(replica, "it has been replaced; only sidecars still run in it")
        elif place in kept or replica.id.rank >= draft.spec.aggregation.total:
            draft.stop(replica, "a later one that ended is kept instead")
        kept.add(place)


def _reason(member: MemberIntent) -> str:
    if member.starts:
        return "it was asked to restart in place"
    if member.candidate:
        return "it is to take over from an earlier attempt"
    return "its rank needs a worker" if member.attempt == 1 else "it replaces an earlier attempt"
