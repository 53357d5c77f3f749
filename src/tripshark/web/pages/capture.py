"""A capture by hand."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from tripshark.model.filter import Scope
from tripshark.web import query, site
from tripshark.web.caller import caller_of
from tripshark.web.openapi import Described, Parameter
from tripshark.web.pages.lost import targets_now
from tripshark.web.parts import Parts
from tripshark.web.route import Route
from tripshark.web.seen import seen

MOST = 2000  # targets to choose from


async def show(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ("target", "peer"))
    found, away = await targets_now(parts)
    known = await seen(found, caller_of(request, parts))
    return site.page(
        request,
        parts,
        "capture.html",
        target=query.text(request.query_params, "target"),
        peer=query.text(request.query_params, "peer"),
        targets=sorted({name for each in known for name in (each.title, each.name)})[:MOST],
        away=away,
        scopes=[each.value for each in Scope],
    )


ROUTES: tuple[Route, ...] = (
    Route(
        path="/capture",
        handler=show,
        described=Described(
            "The page from which a capture by hand is started.",
            answers={"200": "HTML."},
            parameters=(
                Parameter("target", "query", "Filled in."),
                Parameter("peer", "query", "Filled in."),
            ),
            media="text/html",
        ),
    ),
)
