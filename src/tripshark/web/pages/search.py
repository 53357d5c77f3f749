"""Looking for a name, an address or a hash over all evidence that the caller may read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tripshark.errors import TripsharkError
from tripshark.model.search import KINDS
from tripshark.web import query, search, site
from tripshark.web.openapi import Described, Parameter
from tripshark.web.parts import Parts
from tripshark.web.route import Route


async def show(request: Request, parts: Parts) -> Response:
    given = {name: value for name, value in request.query_params.items() if value}
    wrong: TripsharkError | None = None
    told: Mapping[str, Any] = {"hits": [], "next": None}
    if "q" in given:
        # the page shows what the API answers, to the same caller, with the same rights
        asked = Request({**request.scope, "query_string": urlencode(given).encode()})
        try:
            answer = await search.search(asked, parts)
            told = msgspec.json.decode(answer.body)
        except TripsharkError as error:
            wrong = error
    return site.page(
        request,
        parts,
        "search.html",
        status=wrong.http_status if wrong else 200,
        q=given.get("q", ""),
        kind_asked=given.get("kind", ""),
        kinds=sorted(KINDS),
        found=_by_incident(told["hits"]),
        hits=len(told["hits"]),
        wrong=wrong,
        packets=_packets,
        next_page=f"/search?{urlencode({**given, 'before': told['next']})}"
        if told["next"]
        else "",
        is_first="before" not in given,
    )


def _by_incident(
    hits: list[Mapping[str, Any]],
) -> list[tuple[Mapping[str, Any], list[Mapping[str, Any]]]]:
    """The first hit of each incident, for what is said of it, and all of its hits."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for each in hits:
        found.setdefault(each["incident"], []).append(each)
    return [(each[0], each) for each in found.values()]


def _packets(hit: Mapping[str, Any]) -> str:
    """Where the packet view shows it."""
    asked = {name: hit[name] for name in ("file", "filter") if hit[name]}
    chosen = f"#p={hit['frame']}" if hit["frame"] else ""
    return f"/incidents/{hit['incident']}/packets?{urlencode(asked, quote_via=quote)}{chosen}"


ROUTES: tuple[Route, ...] = (
    Route(
        path="/search",
        handler=show,
        described=Described(
            "The page that looks through all evidence.",
            answers={"200": "HTML."},
            parameters=(
                Parameter("q", "query", "What is looked for."),
                Parameter("kind", "query", "What it is."),
                Parameter("since", "query", "Only incidents not older than this."),
                Parameter("before", "query", "Where an earlier page ended."),
                Parameter("limit", "query", f"At most this many, 1 to {query.MAX_LIMIT}."),
            ),
            errors=(404,),
            media="text/html",
        ),
    ),
)
