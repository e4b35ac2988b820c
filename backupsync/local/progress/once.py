"""Four workers that die of the same mistake say it once."""

import msgspec

from backupsync.local.events import Event


class Once:
    """Remembers the last words that were shown."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def shorten(self, event: Event) -> Event:
        """Return the event, without its last words when the same end was shown before."""
        if not event.detail:
            return event
        end = event.detail.splitlines()[-1]
        if end in self._seen:
            return msgspec.structs.replace(event, detail=f"(as before: {end})")
        self._seen.add(end)
        return event
