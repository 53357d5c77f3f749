"""Which incident a path means, whether the caller may know of it, and that they looked at it."""

from __future__ import annotations

import contextlib
from typing import Final

from starlette.requests import Request

from tripshark.errors import NotFound
from tripshark.model.evidence import incident_id
from tripshark.model.incident import Incident, State
from tripshark.web.access import INCIDENTS
from tripshark.web.caller import caller_of
from tripshark.web.parts import Parts

LOOKED: Final = "incident"  # as custody calls the record itself, beside the names of files
_KEPT: Final = frozenset({State.SEALED, State.EMPTY})  # there is custody to write into


async def incident_of(request: Request, parts: Parts) -> Incident:
    """The one in the path. Raises `NotFound`, and what `Caller.require` and noting it raise."""
    id = incident_id(request.path_params["id"])
    found = await parts.catalogue.incident(id)
    if found is None:
        raise NotFound("no such incident", where=id, hint="GET /v1/incidents lists them")
    caller = caller_of(request, parts)
    await caller.require("get", INCIDENTS, found.held)
    if found.state in _KEPT:
        await looked(parts, found, LOOKED, caller.name)
    return found


async def looked(parts: Parts, found: Incident, what: str, who: str) -> None:
    """Custody knows of it before anything is shown: once an hour, not with every page."""
    with contextlib.suppress(NotFound):  # retention took it away meanwhile, and its custody
        await parts.looks.note(
            found.id,
            what,
            who,
            "",
            now_ns=parts.clock.now_ns(),
            custody=parts.custody,
            deed=None,
        )
