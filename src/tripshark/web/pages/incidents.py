"""The first page: incidents, newest first, what was refused, and what may be lost."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlencode

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from tripshark.errors import BadInput, NotFound, TripsharkError
from tripshark.model.incident import State
from tripshark.ports import Query
from tripshark.web import query, site
from tripshark.web.caller import caller_of
from tripshark.web.openapi import Described, Parameter
from tripshark.web.pages.lost import problems, targets_now
from tripshark.web.parts import Parts
from tripshark.web.route import Route
from tripshark.web.seen import refusal_counts

FILTERS = ("text", "namespace", "pod", "rule", "state", "since")
PAGE = 50
REFUSED = 20


async def home(request: Request, parts: Parts) -> Response:
    visible = await caller_of(request, parts).visible(parts.catalogue)
    given = QueryParams([(name, value) for name, value in request.query_params.items() if value])
    wrong: TripsharkError | None = None
    try:
        asked = query.incidents(given, parts.clock.now_ns())
        asked = replace(asked, visible=visible)
        found = await parts.catalogue.incidents(asked)
    except (BadInput, NotFound) as error:  # said beside the filters: there it can be mended
        wrong, asked, found = error, Query(), ()
    _, away = await targets_now(parts)
    refusals = await parts.catalogue.refusals(limit=REFUSED, namespaces=visible)
    counts = await refusal_counts(parts, refusals, visible)
    filters = {name: given.get(name, "") for name in FILTERS}
    used = {name: value for name, value in filters.items() if value}
    return site.page(
        request,
        parts,
        "incidents.html",
        status=wrong.http_status if wrong else 200,
        incidents=found,
        filters=filters,
        filtered=bool(used),
        wrong=wrong,
        states=[each.value for each in State],
        namespaces=await _namespaces(parts, visible),
        is_first="before" not in given,
        first_page="/" + (f"?{urlencode(used)}" if used else ""),
        next_page=(
            f"/?{urlencode({**used, 'before': found[-1].id})}" if len(found) >= asked.limit else ""
        ),
        stream="/v1/events" + (f"?{urlencode(used)}" if used else ""),
        problems=await problems(parts, away, everything=visible is None),
        sees_everything=visible is None,
        refusals=[each for each in refusals if each.refusal is not None],
        refused=sum(counts.values()),
    )


async def _namespaces(parts: Parts, visible: tuple[str, ...] | None) -> list[str]:
    """To choose from."""
    if visible is not None:
        return sorted(visible)
    return sorted(each for each in await parts.catalogue.namespaces() if each and each != "*")


ROUTES: tuple[Route, ...] = (
    Route(
        path="/",
        handler=home,
        described=Described(
            "The page of incidents, refusals, and what may be lost.",
            answers={"200": "HTML."},
            parameters=tuple(
                Parameter(name, "query", meaning)
                for name, meaning in (
                    ("text", "Stands somewhere in target, rules or summary."),
                    ("namespace", "Kubernetes namespace of the target."),
                    ("pod", "Pod of the target."),
                    ("rule", "Tripshark's or Falco's rule."),
                    ("state", "open, sealing, sealed, empty, failed or removed."),
                    ("since", "Not older than this: 2h, or an RFC 3339 time."),
                    ("before", "Only incidents older than this one."),
                )
            ),
            media="text/html",
        ),
    ),
)
