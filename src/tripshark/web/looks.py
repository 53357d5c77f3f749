"""Who looked at which packets, and through which filters: each is told to custody once, not with every page."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final

from tripshark.model.alert import Json
from tripshark.model.evidence import IncidentId

_REMEMBERED: Final = 4096
_FRESH_NS: Final = 3_600_000_000_000  # who comes back after an hour is noted again
_FILTERS: Final = 200  # of one reader and file that are noted one by one

Custody = Callable[[IncidentId, str, str], None]
Deed = Callable[[IncidentId, str, str, Mapping[str, Json]], None]


class Looks:
    """What has been noted of the last hour."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str, str, str], int] = OrderedDict()
        self._filters: dict[tuple[str, str, str], int] = {}

    async def note(
        self,
        incident: IncidentId,
        file: str,
        who: str,
        filter: str,
        *,
        now_ns: int,
        custody: Custody | None,
        deed: Deed | None,
    ) -> None:
        """Custody knows before the first packet leaves. Raises what `custody` and `deed` raise."""
        if self._is_new((who, incident, file, ""), now_ns):
            self._filters.pop((who, incident, file), None)
            if custody is not None:
                await self._told((who, incident, file, ""), custody, incident, file, who)
        if filter and self._is_new((who, incident, file, filter), now_ns):
            count = self._filters.get((who, incident, file), 0) + 1
            self._filters[who, incident, file] = count
            if deed is not None and count <= _FILTERS:
                details: dict[str, Json] = {"file": file, "filter": filter}
                if count == _FILTERS:
                    details["more"] = "further filters are not noted one by one"
                look = (who, incident, file, filter)
                await self._told(look, deed, incident, "viewed", who, details)

    def _is_new(self, look: tuple[str, str, str, str], now_ns: int) -> bool:
        before = self._known.get(look)
        if before is not None and now_ns - before < _FRESH_NS:
            return False
        self._known[look] = now_ns
        self._known.move_to_end(look)
        while len(self._known) > _REMEMBERED:
            (who, incident, file, filter), _ = self._known.popitem(last=False)
            if not filter:
                self._filters.pop((who, incident, file), None)
        return True

    async def _told(
        self, look: tuple[str, str, str, str], tell: Callable[..., None], *said: object
    ) -> None:
        try:
            await asyncio.to_thread(tell, *said)
        except BaseException:
            self._known.pop(look, None)  # the next look is the first
            raise
