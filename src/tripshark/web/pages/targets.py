"""What is being recorded, how far back, and what was lost of it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from tripshark.model.alert import Json
from tripshark.web import query, shapes, site
from tripshark.web.caller import caller_of
from tripshark.web.openapi import Described
from tripshark.web.pages.lost import problems, targets_now
from tripshark.web.parts import Parts
from tripshark.web.route import Route
from tripshark.web.seen import seen


async def show(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ())
    caller = caller_of(request, parts)
    found, away = await targets_now(parts)
    now_ns = parts.clock.now_ns()
    rows = [shapes.target(each, now_ns) for each in await seen(found, caller)]
    return site.page(
        request,
        parts,
        "targets.html",
        targets=sorted(rows, key=_order),
        longest=max([1.0, *(_seconds(each) for each in rows)]),
        away=away,
        problems=await problems(parts, away, everything=await caller.sees_everything()),
    )


def _seconds(row: dict[str, Json]) -> float:
    value = row["history_seconds"]
    return value if isinstance(value, float) else 0.0


def _order(row: dict[str, Json]) -> tuple[bool, str]:
    """Those that live first, by name."""
    return (not row["alive"], str(row["title"]))


ROUTES: tuple[Route, ...] = (
    Route(
        path="/targets",
        handler=show,
        described=Described(
            "The page of what is recorded.", answers={"200": "HTML."}, media="text/html"
        ),
    ),
)
