"""Who asks, as the application found out before a handler runs."""

from __future__ import annotations

from starlette.requests import Request

from tripshark.errors import Denied
from tripshark.web import query
from tripshark.web.access import Caller
from tripshark.web.parts import Parts


def caller_of(request: Request, parts: Parts) -> Caller:
    """Who asks, as the application found out; where it did not, nobody with rights."""
    if parts.access is None:
        return Caller(query.caller(request))
    known: Caller | None = getattr(request.state, "caller", None)
    if known is None:
        raise Denied("this needs a Kubernetes token", hint="send `Authorization: Bearer TOKEN`")
    return known
