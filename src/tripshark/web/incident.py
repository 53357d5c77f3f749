"""Which incident a path means, and whether the caller may know of it."""

from __future__ import annotations

from starlette.requests import Request

from tripshark.errors import NotFound
from tripshark.model.evidence import incident_id
from tripshark.model.incident import Incident
from tripshark.web.access import INCIDENTS
from tripshark.web.caller import caller_of
from tripshark.web.parts import Parts


async def incident_of(request: Request, parts: Parts) -> Incident:
    """The one in the path. Raises `NotFound`, and what `Caller.require` raises."""
    id = incident_id(request.path_params["id"])
    found = await parts.catalogue.incident(id)
    if found is None:
        raise NotFound("no such incident", where=id, hint="GET /v1/incidents lists them")
    await caller_of(request, parts).require("get", INCIDENTS, found.held)
    return found
