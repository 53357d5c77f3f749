"""Test this event: what an event of Falco would lead to, over HTTP. Nothing is recorded, counted or kept."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from tripshark.errors import NotFound
from tripshark.model.incident import EVERY
from tripshark.web import query
from tripshark.web.access import INCIDENTS
from tripshark.web.answers import json
from tripshark.web.body import JSON, bounded
from tripshark.web.caller import caller_of
from tripshark.web.openapi import Described
from tripshark.web.parts import Parts
from tripshark.web.route import Route
from tripshark.web.schema import ANYTHING, FLAG, TEXT, WHOLE, maybe, obj, rows

MAX_EVENT: Final = 1 << 20  # bytes


async def test_event(request: Request, parts: Parts) -> Response:
    """Raises `BadInput` and its kinds, `NotFound` where there are no rules, `Forbidden`."""
    query.known(request.query_params, ())
    await caller_of(request, parts).require("get", INCIDENTS, [EVERY])  # rules are about everybody
    if parts.attempt is None:
        raise NotFound("there are no rules here", hint="each node has its own; ask one of them")
    return json(await parts.attempt(await bounded(request, JSON, most=MAX_EVENT)))


_PLAN = obj(
    {
        "rule": TEXT,
        "reason": TEXT,
        "scope": TEXT,
        "before_ns": WHOLE,
        "after_ns": WHOLE,
        "idle_ns": WHOLE,
        "snaplen": WHOLE,
        "filter": TEXT,
        "max_bytes": WHOLE,
        "max_packets": WHOLE,
        "rungs": rows(obj({"scope": TEXT, "core": TEXT, "also": TEXT, "reason": TEXT})),
    }
)
_TRIED = obj(
    {
        "alert": obj({"rule": TEXT, "priority": TEXT, "t0_ns": WHOLE}),
        "target": maybe(TEXT),
        "target_reason": TEXT,
        "target_hint": TEXT,
        "rules": rows(obj({"rule": TEXT, "matched": FLAG, "why_not": rows(TEXT)})),
        "plan": maybe(_PLAN),
        "refusal": maybe(obj({"reason": TEXT, "message": TEXT, "hint": TEXT, "rule": TEXT})),
        "where_it_is_recorded": maybe(_PLAN),
    }
)

ROUTES: tuple[Route, ...] = (
    Route(
        path="/v1/rules/test",
        method="POST",
        handler=test_event,
        described=Described(
            "What an event of Falco would lead to: which rules match, which target, window and filter. Nothing is done.",
            answers={"200": "What would happen."},
            takes=ANYTHING,
            gives=_TRIED,
            errors=(404, 408, 413, 415),
        ),
    ),
)
