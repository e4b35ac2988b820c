"""The desired state told to the aggregator: minted with a rising generation, repeated until echoed."""

from typing import Any

from msgspec import structs

from backupsync.control import Desired, DesiredMember
from backupsync.lifecycle.draft import Draft
from backupsync.lifecycle.types import Tell

TELL_AGAIN_SECONDS = 2.0
"""How long an unechoed desired state may stay unrepeated."""


def desire_running(draft: Draft) -> None:
    """Desire what the spec and the members say."""
    aggregation = draft.spec.aggregation
    members = tuple(DesiredMember(m.rank, m.attempt, m.candidate) for m in draft.status.members)
    _mint(
        draft,
        members=members,
        workers=aggregation.workers,
        backup_workers=aggregation.backup_workers,
        suspend=False,
        stop=False,
        restart=tuple((r.rank, r.attempt) for r in draft.status.restarts),
    )


def desire_halt(draft: Draft, *, suspend: bool = False, stop: bool = False) -> None:
    """Desire that the aggregator suspends or stops, its members as they were last told."""
    old = draft.status.desired
    if old is not None:
        _mint(draft, suspend=suspend or old.suspend, stop=stop or old.stop)


def tell(draft: Draft) -> None:
    """Repeat the desired state until the aggregator in office echoes it."""
    desired, answer = draft.status.desired, draft.aggregator
    if desired is None or answer is None or draft.echoed:
        return
    if draft.aggregator_id not in {replica.id for replica in draft.there("aggregator")}:
        return
    draft.wake(draft.now + TELL_AGAIN_SECONDS)
    draft.act(Tell(desired, f"it has applied {answer.applied}, desired is {desired.order}"))


def _mint(draft: Draft, **content: Any) -> None:
    """Give the desired state a new generation if its content, or the engine's term, has changed."""
    old, term = draft.status.desired, draft.observed.term
    if old is None:
        draft.update(desired=Desired(term=term, generation=1, **content))
        return
    answer = draft.aggregator
    # A status restored from a backup would be refused for ever, had it not to exceed what is applied.
    overtaken = answer is not None and answer.applied > (term, old.generation) and answer.applied[0] == term
    wanted = structs.replace(old, term=term, **content)
    if wanted != old or overtaken:
        floor = answer.applied[1] if answer is not None and overtaken else 0
        draft.update(desired=structs.replace(wanted, generation=max(old.generation, floor) + 1))
        draft.note(
            f"generation {max(old.generation, floor) + 1} of the desired state: {_changes(old, wanted)}"
        )


def _changes(old: Desired, new: Desired) -> str:
    fields = ("members", "workers", "backup_workers", "suspend", "stop", "restart", "term")
    changed = [name for name in fields if getattr(old, name) != getattr(new, name)]
    return f"{', '.join(changed)} changed" if changed else "the aggregator had applied a later one"
