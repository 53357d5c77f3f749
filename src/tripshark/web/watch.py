"""The newest incidents as everybody who watches sees them: the catalogue is asked once a second for all of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Final

from tripshark.errors import TripsharkError
from tripshark.model.incident import Incident
from tripshark.ports import Catalogue, Clock, Query

EVERY_SECONDS: Final = 1.0
NEWEST: Final = 200  # incidents that are watched: of a list, what fits on a screen


class Watch:
    """What the catalogue says of the newest incidents, asked at most once a second for everybody."""

    def __init__(self) -> None:
        self._asking = asyncio.Lock()
        self._asked_ns = 0
        self._found: Sequence[Incident] | TripsharkError = ()
        self.watchers: Counter[str] = Counter()  # streams that are open, by who reads them
        self.closing = asyncio.Event()

    async def newest(self, catalogue: Catalogue, clock: Clock) -> Sequence[Incident]:
        """Newest first. Raises what the catalogue raises."""
        async with self._asking:
            if not 0 <= clock.now_ns() - self._asked_ns < EVERY_SECONDS * 0.9e9:
                try:
                    self._found = await catalogue.incidents(Query(limit=NEWEST))
                except TripsharkError as error:
                    self._found = error
                self._asked_ns = clock.now_ns()
        if isinstance(self._found, TripsharkError):
            raise self._found
        return self._found


def fits(it: Incident, asked: Query) -> bool:
    """What the catalogue's own filters mean, for one incident."""
    words = (it.id, it.title, it.rule, it.falco_rule, it.summary)
    return (
        it.opened_ns >= asked.since_ns
        and asked.namespace in ("", it.namespace)
        and asked.pod in ("", it.pod)
        and asked.rule in ("", it.rule, it.falco_rule)
        and asked.state in ("", it.state.value)
        and (not asked.text or any(asked.text.lower() in each.lower() for each in words))
        and (asked.visible is None or set(it.held) <= set(asked.visible))
    )
