"""Suspension, by the spec or by Ctrl-C: a checkpoint first, then everything ends, and training can go on.

A halt once begun is completed even if it is taken back meanwhile, since the aggregator has let its workers
go; the job then goes on under a new epoch.
"""

from typing import Final

from msgspec import structs

from backupsync.lifecycle.aggregator import can_come_back, can_lose, mint_epoch
from backupsync.lifecycle.desired import desire_halt, tell
from backupsync.lifecycle.draft import Draft
from backupsync.lifecycle.ending import remove_exited, wind_up

REFUSED: Final = (
    "spec.runPolicy.suspend is true, yet training goes on: its checkpoints end with the aggregator's pod, so "
    "suspending would lose all of it; give the next job a spec.checkpoint.volumeClaimTemplate, or delete this"
)


def wanted_halt(draft: Draft) -> str:
    """Why the job should not run: "Stopped", "Suspended", or "" when it should."""
    if draft.observed.stop_requested:
        return "Stopped"
    return "Suspended" if draft.spec.run_policy.suspend else ""


def halt(draft: Draft) -> bool:
    """Bring the job to rest, or keep it there. True if that is wanted or under way, so that nothing runs."""
    wanted = _granted(draft, wanted_halt(draft))
    status = draft.status
    if wanted and wanted != status.halt:
        draft.update(halt=wanted)
    if status.phase != "Suspended":
        if status.halting_since is None and wanted:
            _begin(draft)
        _wait_for_checkpoint(draft)
    if draft.status.phase != "Suspended":
        return draft.status.halting_since is not None
    if wanted:
        _rest(draft)
    return bool(wanted)


def _granted(draft: Draft, wanted: str) -> str:
    """Refuse a suspension that nothing could be resumed from; whoever stops a job by hand means it."""
    under_way = draft.status.halting_since is not None or draft.status.phase == "Suspended"
    refused = wanted == "Suspended" and not under_way and not can_lose(draft)
    if refused and not draft.status.suspend_refused:
        draft.announce("Warning", "SuspendRefused", REFUSED)
    if refused != draft.status.suspend_refused:
        draft.update(suspend_refused=refused)
    if refused:
        draft.note(REFUSED)
    return "" if refused else wanted


def resume(draft: Draft) -> None:
    """Let a suspended job go on: a new epoch, every member minted anew, and fresh budgets of crashes."""
    if draft.status.phase != "Suspended" or not can_come_back(draft):
        return
    if draft.status.aggregator_attempt:
        mint_epoch(draft)
    fresh = (
        structs.replace(h, crashes=0, losses=0, retry_at=0.0, lost_since=None, left_since=None)
        for h in draft.status.ranks
    )
    draft.update(
        phase="Pending",
        halt="",
        halted_at=None,
        ranks=tuple(fresh),
        aggregator_crashes=0,
        aggregator_losses=0,
        aggregator_retry_at=0.0,
    )
    if draft.status.start_time is not None:
        draft.announce("Normal", "Resumed", "training goes on from the newest checkpoint")


def _begin(draft: Draft) -> None:
    if draft.status.start_time is None:
        draft.note("the job is not started")
        _halted(draft, "it had not been started")
        return
    draft.update(halting_since=draft.now)
    why = "the user asked to stop" if draft.status.halt == "Stopped" else "spec.runPolicy.suspend is true"
    draft.announce("Normal", "Suspending", f"{why}: waiting for the aggregator's checkpoint")


def _wait_for_checkpoint(draft: Draft) -> None:
    since, answer = draft.status.halting_since, draft.last_answer
    if since is None:
        return
    stopped = draft.status.halt == "Stopped"
    desire_halt(draft, suspend=not stopped, stop=stopped)
    until = since + draft.spec.run_policy.suspend_grace_seconds
    runs = draft.aggregator_id in {replica.id for replica in draft.there("aggregator")}
    if answer is not None and answer.phase == "Suspended":
        at = answer.checkpoint_iteration
        _halted(draft, "no checkpoint was written" if at is None else f"checkpoint at iteration {at}")
    elif not draft.answered:
        _halted(draft, "the aggregator had not begun")
    elif not runs:
        _halted(draft, "the aggregator had ended; its newest checkpoint stands")
    elif draft.now >= until:
        said = "the aggregator wrote none within suspendGraceSeconds; its newest checkpoint stands"
        _halted(draft, said)
    else:
        draft.wake(until)
        draft.note("waiting for the aggregator's checkpoint before anything is stopped")
        tell(draft)


def _halted(draft: Draft, how: str) -> None:
    draft.update(phase="Suspended", halting_since=None, halted_at=draft.now, members=(), restarts=())
    draft.announce("Normal", "Suspended", f"the job is suspended: {how}")


def _rest(draft: Draft) -> None:
    draft.note("the job is suspended: nothing is started")
    since = draft.status.halted_at
    since = draft.now if since is None else since
    wind_up(draft, since=since, dismissed=draft.dismissed, reason="the job is suspended")
    if draft.observed.pods:
        remove_exited(draft, "no pods while the job is suspended")
